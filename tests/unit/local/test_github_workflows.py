"""Workflow files become jobs: expressions, matrices, plans and the copies that act runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runsfleet_cli.local.github.runner.steps import StepBook, step_name
from runsfleet_cli.local.jobs.expressions import (
    ExpressionError,
    condition,
    evaluate,
    interpolate,
)
from runsfleet_cli.local.jobs.matrix import MatrixError, expand
from runsfleet_cli.local.jobs.plan import (
    PlannedJob,
    WorkflowError,
    plan_job,
    read_workflow,
    read_workflow_file,
)
from runsfleet_cli.local.jobs.prepare import NeededJob

EXAMPLES = Path(__file__).parents[3] / "examples" / "workflows"
CONTEXTS: dict[str, Any] = {
    "github": {"run_id": "77", "ref": "refs/heads/main"},
    "matrix": {"os": "Linux", "n": 2, "list": ["a", "b"], "objects": [{"x": 1}, {"x": 2}]},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("github.run_id", "77"),
        ("github['run_id']", "77"),
        ("matrix.missing.deeper", None),
        ("matrix.list[1]", "b"),
        ("matrix.objects.*.x", [1, 2]),
        ("matrix.os == 'linux'", True),
        ("matrix.n == '2'", True),
        ("matrix.n >= 2 && matrix.n < 3", True),
        ("!matrix.n", False),
        ("matrix.missing || 'default'", "default"),
        ("matrix.n > 1 && 'many' || 'one'", "many"),
        ("(1 == 2) == false", True),
        ("'it''s'", "it's"),
        ("0x10", 16),
        ("-1.5e1", -15),
        ("null", None),
        ("contains('Hello', 'ELL')", True),
        ("contains(matrix.list, 'b')", True),
        ("startsWith(github.ref, 'refs/heads/')", True),
        ("endsWith(github.ref, '/main')", True),
        ("format('{0}-{1} {{}}', 'a', matrix.n)", "a-2 {}"),
        ("join(matrix.list, '+')", "a+b"),
        ("fromJSON('{\"a\": [1]}').a[0]", 1),
        ("toJSON(matrix.list)", '[\n  "a",\n  "b"\n]'),
    ],
)
def test_expressions(text: str, expected: object) -> None:
    """The language's literals, operators, contexts and functions work as documented."""
    assert evaluate(text, CONTEXTS) == expected


@pytest.mark.parametrize(
    "text", ["", "github.", "1 +", "nope()", "'open", "format('{3}')", "fromJSON('x')", "a b", "(1"]
)
def test_wrong_expressions_are_refused(text: str) -> None:
    """What is no expression raises an error that shows it."""
    with pytest.raises(ExpressionError):
        evaluate(text, CONTEXTS)


def test_interpolation_keeps_types_where_an_expression_stands_alone() -> None:
    """A lone expression keeps its type; inside text it becomes text, also in lists and mappings."""
    value = {"a": "${{ matrix.list }}", "b": ["n=${{ matrix.n }}/x", 3]}
    assert interpolate(value, CONTEXTS) == {"a": ["a", "b"], "b": ["n=2/x", 3]}
    assert interpolate("${{ matrix.n }}${{ matrix.n }}", CONTEXTS) == "22"
    with pytest.raises(ExpressionError, match="without its"):
        interpolate("x ${{ matrix.n", CONTEXTS)


@pytest.mark.parametrize(
    ("text", "succeeded", "failed", "expected"),
    [
        (None, True, False, True),
        (None, False, True, False),
        ("always()", False, True, True),
        ("failure()", False, True, True),
        ("${{ failure() }}", True, False, False),
        ("github.ref == 'refs/heads/main'", True, False, True),
        ("github.ref == 'refs/heads/main'", False, False, False),
        ("cancelled()", True, False, False),
        ("!cancelled() && matrix.n == 2", False, True, True),
        (True, True, False, True),
    ],
)
def test_conditions(text: object, succeeded: bool, failed: bool, expected: bool) -> None:
    """Without a status function a condition implies success()."""
    found = condition(text, CONTEXTS, needs_succeeded=succeeded, needs_failed=failed)
    assert found is expected


def test_a_matrix_includes_and_excludes_as_documented() -> None:
    """The example of GitHub's documentation gives its documented combinations."""
    found = expand(
        {
            "fruit": ["apple", "pear"],
            "animal": ["cat", "dog"],
            "include": [
                {"color": "green"},
                {"color": "pink", "animal": "cat"},
                {"fruit": "apple", "shape": "circle"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
        }
    )
    assert found == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert expand({"a": [1, 2], "b": [3], "exclude": [{"a": 1}]}) == [{"a": 2, "b": 3}]
    assert expand({"include": [{"only": 1}]}) == [{"only": 1}]


@pytest.mark.parametrize(
    "matrix",
    [
        {"a": "text"},
        {"a": []},
        {"a": [1], "exclude": [{"a": 1}]},
        {"a": list(range(257))},
        {"a": [1], "include": "x"},
    ],
)
def test_a_matrix_that_github_refuses(matrix: dict[str, Any]) -> None:
    """An axis that is no list, nothing left, or more than 256 jobs is refused."""
    with pytest.raises(MatrixError):
        expand(matrix)


def plan_all(file: str, key: str, **needed: NeededJob) -> list[PlannedJob]:
    """Plan one job of an example."""
    plan = read_workflow_file(EXAMPLES / file)
    return plan_job(plan, key, github={"run_id": "77"}, needed=needed)


def test_the_example_matrix_becomes_jobs_with_their_labels() -> None:
    """include, exclude, name and runs-on of the example are evaluated."""
    jobs = plan_all("matrix.yml", "build")
    assert [(job.name, job.labels) for job in jobs] == [
        ("build api on arm64", ("runs-fleet=77/runner=4cpu-linux-arm64",)),
        ("build api on x64", ("runs-fleet=77/runner=4cpu-linux-x64",)),
        ("build web on arm64", ("runs-fleet=77/runner=4cpu-linux-arm64",)),
        ("build docs on arm64", ("runs-fleet=77/runner=2cpu-linux-arm64",)),
    ]
    assert not jobs[0].fail_fast


def test_a_copy_for_act_holds_one_combination_and_what_is_needed() -> None:
    """The copy runs on self-hosted, has one combination, and stand-ins for needed jobs."""
    (job,) = plan_all("matrix.yml", "publish", build=NeededJob("success", {"built": "web"}))
    copy = json.loads(job.document)
    assert set(copy["jobs"]) == {"build", "publish"}
    assert copy["jobs"]["build"]["outputs"] == {"built": "web"}
    assert copy["jobs"]["publish"]["runs-on"] == "self-hosted"
    build = json.loads(plan_all("matrix.yml", "build")[1].document)["jobs"]["build"]
    assert build["strategy"]["matrix"]["include"] == [
        {"part": "api", "arch": "x64", "size": "4cpu"}
    ]
    assert build["steps"][-1]["env"] == {"RUNSFLEET_OUTPUT_0": "${{ steps.build.outputs.built }}"}


def test_labels_can_be_overridden_and_grouped() -> None:
    """An override replaces every label, and runs-on may name a group."""
    plan = read_workflow(
        "on: push\njobs: {a: {runs-on: {group: big, labels: [x, y]}, steps: [{run: z}]}}"
    )
    (job,) = plan_job(plan, "a", github={}, needed={})
    assert (job.labels, job.group) == (("x", "y"), "big")
    override = ["runs-fleet=${{ github.run_id }}"]
    (job,) = plan_job(plan, "a", github={"run_id": "5"}, needed={}, label_override=override)
    assert job.labels == ("runs-fleet=5",)


def test_steps_that_need_the_network_fail_with_the_reason() -> None:
    """A remote action becomes a step that says why it cannot run; checkout and local ones stay."""
    plan = read_workflow(
        "on: push\n"
        "jobs: {a: {runs-on: x, steps: [{uses: actions/checkout@v4}, {uses: ./mine},"
        " {uses: actions/cache@v4, id: c}]}}"
    )
    (job,) = plan_job(plan, "a", github={}, needed={})
    steps = json.loads(job.document)["jobs"]["a"]["steps"]
    assert [step.get("uses") for step in steps] == ["actions/checkout@v4", "./mine", None]
    assert steps[2]["name"] == "Run actions/cache@v4"
    assert "actions/cache@v4" in steps[2]["run"]
    assert steps[2]["id"] == "c"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("on: push", "has no jobs"),
        ("jobs: {a: 1}", "must be a mapping"),
        ("jobs: {a: {steps: [{run: x}]}}", "no 'runs-on'"),
        ("jobs: {a: {runs-on: x}}", "no 'steps'"),
        ("jobs: {a: {uses: ./x.yml}}", "reusable workflow"),
        ("jobs: {a: {runs-on: x, needs: b, steps: [{run: x}]}}", "does not exist"),
        ("jobs: {a: {runs-on: x, needs: a, steps: [{run: x}]}}", "break the circle"),
        ("jobs: {a: {runs-on: x, timeout-minutes: soon, steps: [{run: x}]}}", "timeout-minutes"),
        ("jobs: {a: {runs-on: x, strategy: {matrix: 3}, steps: [{run: x}]}}", "matrix"),
        (
            "jobs: {a: {runs-on: x, strategy: {max-parallel: all}, steps: [{run: x}]}}",
            "max-parallel",
        ),
    ],
)
def test_a_file_that_github_refuses_is_named(text: str, words: str) -> None:
    """Each mistake is told with the place and the cure."""
    with pytest.raises(WorkflowError, match=words):
        plan_job(read_workflow(text), "a", github={}, needed={})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file is one sentence."""
    with pytest.raises(WorkflowError, match="cannot read workflow"):
        read_workflow_file(tmp_path / "none.yml")


def test_steps_keep_the_order_of_the_file() -> None:
    """Steps that never began are shown as skipped, at their place."""
    book = StepBook("a", [{"run": "one\ntwo"}, {"name": "second", "run": "x"}, {"uses": "./z"}])
    for number in ("0", "2"):
        line = {"jobID": "a", "stepID": [number], "stage": "Main"}
        assert book.read(line | {"msg": "⭐ Run Main something"})
        book.read(line | {"msg": "done", "stepResult": "success"})
    assert book.read({"jobID": "other", "msg": "not ours"}) is None
    assert book.read({"jobID": "a", "level": "warning", "msg": "unable to get git ref"}) is None
    assert book.read({"jobID": "a", "msg": "over", "jobResult": "success"}) == "over"
    book.close("success")
    shown = [(step["number"], step["name"], step["conclusion"]) for step in book.as_list()]
    assert shown == [(1, "Run one", "success"), (2, "second", "skipped"), (3, "Run ./z", "success")]
    assert book.result == "success"
    assert step_name({}) == "Run"
