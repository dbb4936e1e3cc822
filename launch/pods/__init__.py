"""How a run gets onto machines: one description (run.py), a renderer for each way to start it."""
