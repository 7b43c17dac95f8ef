"""The budgets of ``docs/benchmarks.md``, measured. ``python -m benchmarks`` runs all of them.

What is compared always runs in turns within one run (A B A B ...), and what is judged is the ratio:
a figure in seconds says more about the machine than about the code.
"""
