"""Thin mains behind the `umit` command: flags -> config -> one call."""
