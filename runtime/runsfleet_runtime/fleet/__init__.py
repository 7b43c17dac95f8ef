"""Instances: which types serve a spec, what one CreateFleet asks for, and what it delivered.

``catalogue`` (instance types), ``plan`` (pure: request and result), ``ports``, ``ec2`` (adapter).
"""
