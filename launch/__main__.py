"""`python -m launch` is `umit`."""

from launch.cli import entry

entry()
