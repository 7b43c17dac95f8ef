"""Configurations in Parameter Store, read back by what the agent reads with."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from runsfleet_runtime.agent.ssm import SsmConfigurations
from runsfleet_runtime.contract.messages import RunnerConfig
from runsfleet_runtime.runners.ports import RunnerConfigTooLargeError, RunnerStoreError
from runsfleet_runtime.runners.ssm import SsmRunnerStore

ROLE = "AROAEXAMPLE"
PREFIX = "/runs-fleet/dev/runners"
INSTANCE = "i-0123456789abcdef0"
NOW = 1_800_000_000.0


@pytest.fixture
def store(clients: Any) -> SsmRunnerStore:
    """Make the store under test."""
    return SsmRunnerStore(clients, prefix=PREFIX, role_id=ROLE)


def read(clients: Any, instance_id: str = INSTANCE) -> str | None:
    """Read as the agent of an instance does."""
    return SsmConfigurations(clients, prefix=PREFIX).read(instance_id, now=NOW)


def names(clients: Any) -> list[str]:
    """List the parameters there are."""
    found = clients("ssm").describe_parameters()["Parameters"]
    return sorted(parameter["Name"] for parameter in found)


class Refusing:
    """Clients of which one action is refused when a condition on its parameters holds."""

    def __init__(self, clients: Any, action: str, code: str, when: Any = lambda _: True) -> None:
        self._client = clients("ssm")
        self._action = action
        self._when = when
        self._error = ClientError({"Error": {"Code": code, "Message": "no"}}, action)

    def __call__(self, service: str) -> Any:
        assert service == "ssm"
        return self

    def __getattr__(self, name: str) -> Any:
        def call(**params: Any) -> Any:
            if name == self._action and self._when(params):
                raise self._error
            return getattr(self._client, name)(**params)

        return call


def test_real_size_comes_back_byte_for_byte(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """A configuration with a JIT configuration of 4.1k is split, and every field comes back."""
    assert len(config().jit_config) > 4096
    store.put(config(), NOW)
    assert RunnerConfig.from_json(read(clients) or "") == config()
    values = [sent["Value"] for sent in clients.sent("PutParameter")]
    assert len(values) == 2
    assert all(len(value.encode()) <= 4096 for value in values)


def test_content_without_references_is_stored_byte_for_byte(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """What the agent reads is the very JSON that dispatch wrote."""
    store.put(config(labels=("a",)), NOW)
    assert read(clients) == config(labels=("a",)).to_json()


def test_no_value_looks_like_a_reference(store: SsmRunnerStore, clients: Any, config: Any) -> None:
    """Double braces, which Parameter Store refuses in values, never reach it."""
    wanted = config(labels=("{{{ssm:/x}}}", "{{", "a{{b}}"))
    store.put(wanted, NOW)
    assert not any("{{" in sent["Value"] for sent in clients.sent("PutParameter"))
    assert RunnerConfig.from_json(read(clients) or "") == wanted


def test_parameters_are_encrypted_standard_and_tagged_when_created(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """Each part is a standard SecureString that carries its instance's identity from the start."""
    store.put(config(), NOW)
    for sent in clients.sent("PutParameter"):
        assert (sent["Type"], sent["Tier"]) == ("SecureString", "Standard")
        assert sent["Tags"] == [{"Key": "runs-fleet:instance-key", "Value": f"{ROLE}:{INSTANCE}"}]
        assert "KeyId" not in sent


def test_own_key_is_used(clients: Any, config: Any) -> None:
    """A fleet with a key of its own encrypts with it, at creation and afterwards."""
    store = SsmRunnerStore(clients, prefix=PREFIX, role_id=ROLE, key_id="alias/own")
    store.put(config(), NOW)
    store.put(config(), NOW)
    assert {sent["KeyId"] for sent in clients.sent("PutParameter")} == {"alias/own"}


def test_first_part_is_written_last(store: SsmRunnerStore, clients: Any, config: Any) -> None:
    """Whoever can read the first part can read them all."""
    store.put(config(), NOW)
    assert [sent["Name"][-1] for sent in clients.sent("PutParameter")] == ["1", "0"]


def test_second_write_replaces_and_never_mixes_tags_with_overwrite(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """A configuration written twice for one instance is the later one, and stays tagged."""
    store.put(config(dispatch=1), NOW)
    store.put(config(dispatch=2), NOW)
    assert RunnerConfig.from_json(read(clients) or "").dispatch == 2
    for sent in clients.sent("PutParameter"):
        assert not ("Tags" in sent and sent.get("Overwrite"))
    tags = clients("ssm").list_tags_for_resource(
        ResourceType="Parameter", ResourceId=f"{PREFIX}/{INSTANCE}/config/0"
    )["TagList"]
    assert tags == [{"Key": "runs-fleet:instance-key", "Value": f"{ROLE}:{INSTANCE}"}]


def test_shorter_second_write_reads_as_itself(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """Parts left over from a longer configuration do not spoil a shorter one."""
    store.put(config(jit_config="x" * 9000), NOW)
    store.put(config(jit_config="y"), NOW)
    assert RunnerConfig.from_json(read(clients) or "").jit_config == "y"


def test_tagging_failure_does_not_fail_the_launch(clients: Any, config: Any) -> None:
    """Where tagging is denied the configuration is written all the same."""
    denied = Refusing(
        clients, "put_parameter", "AccessDeniedException", lambda params: "Tags" in params
    )
    SsmRunnerStore(denied, prefix=PREFIX, role_id=ROLE).put(config(), NOW)
    assert RunnerConfig.from_json(read(clients) or "") == config()


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_write_failure_is_an_error_without_the_secret(clients: Any, config: Any, code: str) -> None:
    """A parameter that cannot be written at all is an error that names it and shows no value."""
    store = SsmRunnerStore(Refusing(clients, "put_parameter", code), prefix=PREFIX, role_id=ROLE)
    with pytest.raises(RunnerStoreError, match=code) as caught:
        store.put(config(), NOW)
    assert INSTANCE in str(caught.value)
    assert "eyJ" not in str(caught.value)


def test_deletion_removes_all_parts_with_one_request(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """Deleting removes every part, of this instance only, and may be repeated."""
    store.put(config(jit_config="x" * 20_000), NOW)
    store.put(config(instance_id="i-other"), NOW)
    clients.calls.clear()
    store.delete(INSTANCE)
    assert [name for name, _ in clients.calls] == ["DeleteParameters"]
    assert len(clients.sent("DeleteParameters")[0]["Names"]) == 10
    assert names(clients) == [f"{PREFIX}/i-other/config/{part}" for part in (0, 1)]
    store.delete(INSTANCE)


def test_deletion_failure_is_an_error(clients: Any) -> None:
    """Parameters that could not be deleted are reported with their instance."""
    refusing = Refusing(clients, "delete_parameters", "ThrottlingException")
    with pytest.raises(RunnerStoreError, match=INSTANCE):
        SsmRunnerStore(refusing, prefix=PREFIX, role_id=ROLE).delete(INSTANCE)


def test_too_large_configuration_is_refused_before_anything_is_written(
    store: SsmRunnerStore, clients: Any, config: Any
) -> None:
    """A configuration beyond ten parameters is refused as a whole."""
    with pytest.raises(RunnerConfigTooLargeError, match=INSTANCE):
        store.put(config(jit_config="x" * 45_000), NOW)
    assert not clients.calls


def test_nothing_joins_a_transaction(store: SsmRunnerStore, config: Any) -> None:
    """The caller learns that it has to write and delete by itself."""
    assert store.transact_put(config(), NOW) == ()
    assert store.transact_delete(INSTANCE) == ()
