"""Workflow files become jobs here: what GitHub's scheduler does before a runner is asked.

`plan` reads a workflow, `expressions` evaluates ``${{ }}``, `matrix` expands a strategy,
`prepare` makes the one-job copy that `act` can execute, `payload` reads recorded webhooks.
"""
