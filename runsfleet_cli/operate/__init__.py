"""Commands for the operator of a deployed fleet: jobs, instances, sessions, logs, audit rows."""
