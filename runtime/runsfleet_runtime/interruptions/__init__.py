"""What EC2 and GitHub tell of instances and jobs: interruptions, ends, cancellations, re-runs.

``model`` (the events and how they are read) · ``notices`` (EC2 takes an instance, or may) ·
``departures`` (an instance is gone) · ``endings`` (a job ended at GitHub) · ``reruns`` (an
interrupted job runs again) · ``events`` (each message to its use case) · ``ports`` · ``dynamodb``,
``ec2`` and ``sqs`` (adapters).
"""
