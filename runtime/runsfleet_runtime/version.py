"""The version of runsfleet: the one place that the wheel, the functions and the agent read."""

__version__ = "0.1.0"
