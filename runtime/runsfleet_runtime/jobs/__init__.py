"""The life of a job: its states, who may move it, and the use cases that do.

``model`` (states and transitions) · ``intake`` (webhook) · ``dispatch`` (claim and launch) ·
``redispatch`` (the one way to launch again) · ``slots`` (caps on runners) · ``backoff`` (when a job
is tried again) · ``ports`` · ``items`` (records as the table holds them) · ``dynamodb``,
``reading``, ``writing`` and ``sqs`` (adapters).
"""
