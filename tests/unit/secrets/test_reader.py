"""Reading secrets: references, caching, rotation, failures."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.secrets import (
    MalformedReferenceError,
    SecretError,
    SecretNotFoundError,
    SecretReader,
    SecretReference,
    SecretStore,
    SecretUnavailableError,
)

REFERENCE = "ssm:/runsfleet/webhook"


class Store:
    """A store in memory that counts how often it is asked."""

    def __init__(self, value: str = "topsecret") -> None:
        self.value = value
        self.error: SecretError | None = None
        self.asked: list[str] = []

    def fetch(self, name: str) -> str:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return self.value


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    """Make a store."""
    return Store()


@pytest.fixture
def clock() -> Clock:
    """Stop the time."""
    return Clock()


@pytest.fixture
def reader(store: Store, clock: Clock) -> SecretReader:
    """Make a reader of both kinds of references."""
    stores = {SecretStore.SSM: store, SecretStore.SECRETS_MANAGER: store}
    return SecretReader(stores, clock=clock)


def test_value_is_fetched_once_in_five_minutes(
    reader: SecretReader, store: Store, clock: Clock
) -> None:
    """A warm function asks for a secret once until its value is five minutes old."""
    for _ in range(3):
        assert reader.read(REFERENCE) == "topsecret"
    clock.now += 299
    reader.read(REFERENCE)
    assert store.asked == ["/runsfleet/webhook"]
    store.value = "rotated"
    clock.now += 1
    assert reader.read(REFERENCE) == "rotated"


def test_refresh_fetches_but_not_more_often_than_the_floor(
    reader: SecretReader, store: Store, clock: Clock
) -> None:
    """A wrong signature brings the rotated secret, and a flood of them no flood of requests."""
    reader.read(REFERENCE)
    store.value = "rotated"
    for _ in range(100):
        assert reader.refresh(REFERENCE) == "topsecret"
    clock.now += 30
    for _ in range(100):
        assert reader.refresh(REFERENCE) == "rotated"
    assert len(store.asked) == 2


def test_first_refresh_fetches(reader: SecretReader) -> None:
    """A refresh before any read answers the value."""
    assert reader.refresh(REFERENCE) == "topsecret"


def test_clock_that_went_backwards_does_not_keep_a_value_for_ever(
    reader: SecretReader, store: Store, clock: Clock
) -> None:
    """A corrected clock makes the value be fetched again."""
    reader.read(REFERENCE)
    clock.now -= 10_000
    reader.read(REFERENCE)
    assert len(store.asked) == 2


def test_outdated_value_serves_while_the_store_is_unavailable(
    reader: SecretReader, store: Store, clock: Clock
) -> None:
    """An outage of the store does not stop a warm function, which asks again after the floor."""
    reader.read(REFERENCE)
    store.error = SecretUnavailableError("throttled")
    clock.now += 3600
    assert reader.read(REFERENCE) == "topsecret"
    assert reader.read(REFERENCE) == "topsecret"
    assert len(store.asked) == 2
    clock.now += 30
    store.error, store.value = None, "rotated"
    assert reader.read(REFERENCE) == "rotated"


def test_unavailable_store_without_a_value_is_an_error_each_time(
    reader: SecretReader, store: Store
) -> None:
    """A cold function without its secret fails, and succeeds as soon as the store answers."""
    store.error = SecretUnavailableError("throttled")
    with pytest.raises(SecretUnavailableError):
        reader.read(REFERENCE)
    store.error = None
    assert reader.read(REFERENCE) == "topsecret"


def test_deleted_secret_is_not_served_from_memory(
    reader: SecretReader, store: Store, clock: Clock
) -> None:
    """A secret that was deleted on purpose stops working everywhere."""
    reader.read(REFERENCE)
    store.error = SecretNotFoundError("gone")
    clock.now += 300
    for _ in range(2):
        with pytest.raises(SecretNotFoundError):
            reader.read(REFERENCE)


def test_line_break_at_the_end_is_no_part_of_the_value(reader: SecretReader, store: Store) -> None:
    """A secret stored from a file works although the file ends with a line break."""
    store.value = "top secret \r\n\n"
    assert reader.read(REFERENCE) == "top secret "


def test_empty_secret_is_refused(reader: SecretReader, store: Store) -> None:
    """An empty secret would make every forged signature verifiable, so it is none."""
    store.value = "\n"
    with pytest.raises(SecretNotFoundError, match="empty"):
        reader.read(REFERENCE)


def test_threads_share_one_fetch(reader: SecretReader, store: Store) -> None:
    """Requests at the same time ask the store once."""
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(reader.read, [REFERENCE] * 50)) == {"topsecret"}
    assert len(store.asked) == 1


def test_secrets_do_not_mix(clock: Clock) -> None:
    """The same name in two stores is two secrets."""
    reader = SecretReader(
        {SecretStore.SSM: Store("a"), SecretStore.SECRETS_MANAGER: Store("b")}, clock=clock
    )
    assert reader.read("ssm:x") == "a"
    assert reader.read("secretsmanager:x") == "b"


def test_values_do_not_show(reader: SecretReader) -> None:
    """Neither the reader nor its memory shows a value in its representation."""
    reader.read(REFERENCE)
    assert "topsecret" not in f"{reader!r} {reader._entries!r}"


@pytest.mark.parametrize(
    ("text", "store", "name"),
    [
        ("ssm:/a/b", SecretStore.SSM, "/a/b"),
        ("secretsmanager:plain", SecretStore.SECRETS_MANAGER, "plain"),
        (
            "secretsmanager:arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf",
            SecretStore.SECRETS_MANAGER,
            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf",
        ),
    ],
)
def test_references(text: str, store: SecretStore, name: str) -> None:
    """Names and ARNs of both stores are understood."""
    assert SecretReference.parse(text) == SecretReference(store, name)


@given(st.text())
def test_anything_else_is_refused_without_repeating_it(text: str) -> None:
    """A secret that was put in place of its reference is refused and does not get into a log."""
    with pytest.raises(MalformedReferenceError) as caught:
        SecretReference.parse(f"hunter2-{text}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["ssm:", "secretsmanager: "])
def test_reference_without_a_name_is_refused(text: str) -> None:
    """A reference that names nothing says how to write it."""
    with pytest.raises(MalformedReferenceError, match="<name>"):
        SecretReference.parse(text)


def test_store_that_the_function_may_not_use(clock: Clock) -> None:
    """A reference to a store without an adapter names those that there are."""
    with pytest.raises(MalformedReferenceError, match="use one of: ssm"):
        SecretReader({SecretStore.SSM: Store()}, clock=clock).read("secretsmanager:x")


def test_import_is_light() -> None:
    """Importing the room loads neither boto3 nor botocore."""
    code = (
        "import sys, runsfleet_runtime.secrets\n"
        "assert not {'boto3', 'botocore', 'jwt', 'urllib3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
