"""Reading the records of jobs."""
