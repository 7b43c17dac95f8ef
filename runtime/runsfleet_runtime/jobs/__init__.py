"""The life of a job: its states, who may move it, and the use cases that do.

``model`` (states and transitions) · ``intake`` (webhook) · ``dispatch`` (claim and launch) ·
``backoff`` (when a job is tried again) · ``ports`` · ``dynamodb`` and ``sqs`` (adapters).
"""
