"""Logs and metrics: one JSON line each, by the standard library alone.

The webhook path and the agent live by their start-up time; what a logging library costs there is
told in ``docs/decisions/``.
"""
