"""Fault rules: which requests they choose, and what they say."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from runsfleet_cli.local.interceptor.aws_request import AwsRequest, Operation
from runsfleet_cli.local.interceptor.callers import Caller
from runsfleet_cli.local.interceptor.faults import FaultBook, FaultRule, FaultRuleError, Pool


def _request(
    service: str = "sqs",
    action: str = "SendMessage",
    **parameters: Any,
) -> AwsRequest:
    operation = Operation(service, action, "eu-central-1", "k", "json", parameters)
    caller = Caller("function", "dev-Dispatch-1")
    return AwsRequest("POST", "/", CIMultiDict(), b"", operation, caller, 0.0)


def _book(**rule: Any) -> FaultBook:
    book = FaultBook()
    book.add(FaultRule.from_dict({"id": "r"} | rule))
    return book


def _applies(book: FaultBook, request: AwsRequest, now: float = 0.0) -> bool:
    return bool(book.decide(request, now).applied)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"service": "sqs"}, True),
        ({"service": "SQS", "action": "send*"}, True),
        ({"caller": "function:*dispatch*"}, True),
        ({"region": "eu-*"}, True),
        ({"region": "us-*"}, False),
        ({"action": "ReceiveMessage"}, False),
        ({"caller": "instance:*"}, False),
    ],
)
def test_rules_match_by_pattern(rule: dict[str, str], expected: bool) -> None:
    """A rule applies when all of its patterns match, whatever the case."""
    assert _applies(_book(effect="throttle", **rule), _request()) is expected


def test_nth_chooses_one_request() -> None:
    """nth=3 applies to the third matching request only."""
    book = _book(effect="throttle", nth=3)
    assert [_applies(book, _request()) for _ in range(5)] == [False, False, True, False, False]


def test_count_and_until_end_a_rule() -> None:
    """A rule ends after its count, and at its time; its counters stay readable."""
    book = _book(effect="throttle", count=2, until=100.0)
    assert [_applies(book, _request()) for _ in range(3)] == [True, True, False]
    assert book.describe() == [
        {"id": "r", "effect": "throttle", "count": 2, "until": 100.0, "matched": 3, "applied": 2}
    ]
    assert not _applies(_book(effect="throttle", until=100.0), _request(), 101.0)


def test_chance_is_repeatable() -> None:
    """The same seed chooses the same requests; roughly as many as the probability says."""

    def chosen(seed: int) -> list[bool]:
        book = _book(effect="throttle", probability=0.3, seed=seed)
        return [_applies(book, _request()) for _ in range(1_000)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert 250 < sum(chosen(1)) < 350


def test_delays_add_up_and_the_first_answer_wins() -> None:
    """Two delays and two answers: the sum, and the answer of the rule added first."""
    book = FaultBook()
    rules: list[dict[str, Any]] = [
        {"effect": "delay", "delay_seconds": 1.0},
        {"effect": "delay", "delay_seconds": 0.5},
        {"effect": "drop", "when": "after"},
        {"effect": "throttle"},
    ]
    for number, rule in enumerate(rules):
        book.add(FaultRule.from_dict({"id": f"r{number}"} | rule))
    decision = book.decide(_request(), 0.0)
    assert decision.delay == 1.5
    assert decision.rule is not None
    assert decision.rule.id == "r2"
    assert decision.applied == ("r0", "r1", "r2")


def test_capacity_closes_pools_by_type_zone_and_capacity_type() -> None:
    """A capacity rule names the pools that it closes; an unknown zone counts as closed."""
    book = _book(
        effect="capacity", instance_types=["c7g.*"], zones=["a"], capacity_types=["spot"], deliver=2
    )
    pools = [
        Pool("c7g.large", "a", "spot"),
        Pool("c7g.large", "b", "spot"),
        Pool("m7g.large", "a", "spot"),
        Pool("c7g.large", "a", "on-demand"),
        Pool("c7g.xlarge", "", "spot"),
    ]
    (closure,) = book.closures(_request("ec2", "CreateFleet"), pools, 0.0)
    assert closure.pools == {pools[0], pools[4]}
    assert (closure.deliver, closure.code) == (2, "InsufficientInstanceCapacity")
    assert book.closures(_request("ec2", "CreateFleet"), pools[2:4], 0.0) == []
    assert not _applies(book, _request("ec2", "CreateFleet"))


def test_capacity_refuses_other_launches() -> None:
    """RunInstances and StartInstances are refused where their pool is closed."""
    book = _book(effect="capacity", capacity_types=["on-demand"])
    assert _applies(book, _request("ec2", "StartInstances"))
    assert _applies(book, _request("ec2", "RunInstances", InstanceType="t4g.medium"))
    assert not _applies(book, _request("ec2", "RunInstances", InstanceMarketOptions={"a": "b"}))
    assert not _applies(book, _request("ec2", "DescribeInstances"))


@pytest.mark.parametrize(
    ("rule", "needle"),
    [
        ({"id": "", "effect": "throttle"}, "id must not be empty"),
        ({"id": "x", "effect": "explode"}, "'explode' is unknown"),
        ({"id": "x", "effect": "throttle", "probability": 2}, "from 0 to 1, got 2"),
        ({"id": "x", "effect": "throttle", "nth": 0}, "counts from 1, got 0"),
        ({"id": "x", "effect": "throttle", "count": 0}, "at least 1, got 0"),
        ({"id": "x", "effect": "drop", "when": "later"}, "got 'later'"),
        ({"id": "x", "effect": "delay"}, "above 0"),
        ({"id": "x", "effect": "error"}, "needs a code"),
        ({"id": "x", "effect": "capacity", "deliver": -1}, "got -1"),
        ({"id": "x", "effect": "throttle", "acton": "x"}, "unknown keys acton"),
        ({"effect": "throttle"}, "missing id"),
    ],
)
def test_bad_rules_are_refused_with_the_cure(rule: dict[str, Any], needle: str) -> None:
    """A rule that cannot be meant is refused with the value and what to do."""
    with pytest.raises(FaultRuleError, match=needle):
        FaultRule.from_dict(rule)


def test_rules_have_unique_ids_and_can_be_removed() -> None:
    """An id is taken until its rule is removed."""
    book = _book(effect="throttle")
    with pytest.raises(FaultRuleError, match="in force already"):
        book.add(FaultRule(id="r", effect="throttle"))
    assert book.remove("r")
    assert not book.remove("r")
    assert not book
    book.add(FaultRule(id="r", effect="throttle"))
    book.clear()
    assert book.describe() == []
