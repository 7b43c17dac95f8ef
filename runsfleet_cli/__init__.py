"""What runs on an operator's machine: the `runsfleet` command and the local cloud."""
