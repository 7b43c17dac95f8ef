"""The circuit breaker: which offerings are not worth asking EC2 for just now.

``model`` (pure: states and decisions), ``ports``, ``breaker`` (what launches ask and operators do),
``dynamodb`` (adapter). How to operate it: docs/circuit-breaker.md.
"""
