"""Between every client and the AWS emulator: the record of all requests, and their faults.

Example:
    >>> interceptor = Interceptor(region="eu-central-1", log=CallLog(Path("calls.jsonl")))
    >>> await interceptor.start()
    >>> interceptor.connect("http://127.0.0.1:4566")
    >>> interceptor.faults.add(FaultRule(id="slow", effect="delay", service="sqs", delay_seconds=2))
    >>> interceptor.log.query(service="sqs", action="SendMessage")
"""

from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
from runsfleet_cli.local.interceptor.backend import InterceptorError
from runsfleet_cli.local.interceptor.callers import Caller
from runsfleet_cli.local.interceptor.calls import Call, CallLog
from runsfleet_cli.local.interceptor.faults import FaultBook, FaultRule, FaultRuleError
from runsfleet_cli.local.interceptor.proxy import Forward, Gap, Interceptor

__all__ = [
    "Answer",
    "AwsRequest",
    "Call",
    "CallLog",
    "Caller",
    "FaultBook",
    "FaultRule",
    "FaultRuleError",
    "Forward",
    "Gap",
    "Interceptor",
    "InterceptorError",
]
