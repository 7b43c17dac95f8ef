"""Every name that infrastructure and runtime share, in one place, standard library only.

Modules: ``environment`` (variables of each function and of the agent), ``tables`` (DynamoDB names),
``messages`` (queue messages and the runner configuration), ``metrics`` (the catalogue), ``tags``
(EC2 tags) and ``paths`` (SSM and S3). Import from the module that owns the name.
"""
