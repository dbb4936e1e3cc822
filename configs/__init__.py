"""Run configurations: each file defines `get_config(arg="")` and holds numbers and strings only."""
