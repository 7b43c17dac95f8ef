"""What a day cost, why, and what it would have cost elsewhere.

What was not measured is left out and named; it is never counted as zero.
"""
