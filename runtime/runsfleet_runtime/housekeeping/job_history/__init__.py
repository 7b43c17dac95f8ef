"""The ``jobs`` table as the sweeps that ask GitHub read it."""
