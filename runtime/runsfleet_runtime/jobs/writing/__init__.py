"""Writing the records of jobs, and what must be written together with them."""
