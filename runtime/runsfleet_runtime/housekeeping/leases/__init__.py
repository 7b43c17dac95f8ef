"""The leases of tasks and what tasks remember; the ports are in ``housekeeping.ports``."""
