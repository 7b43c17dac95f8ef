"""The sweeps: what finds and ends everything that was left over.

One file a task, all of one shape (``ports``): *select* what may be left over, *decide* by a pure
function, read the suspect again and decide again, *act*. ``runner`` carries that out under a lease,
within its time, and reports; ``tasks`` knows how each task is made.

No task is on the way of a job: without them every job would still run, and what they end would have
been noticed by nobody.
"""
