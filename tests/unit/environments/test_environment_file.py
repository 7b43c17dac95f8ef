"""Environment files: put together, checked as a whole, every finding with its place and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from runsfleet_runtime.contract.messages import HousekeepingTask
from stacks.environment_file import EnvironmentFilesError, load_environment, load_environments
from stacks.environment_model import EnvironmentFile

BASE = """\
github:
  secret_name: runsfleet/github-app
limits:
  max_runtime_minutes: 360
  idle_timeout_minutes: 20
tags:
  Application: runsfleet
"""
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of environments with a base."""
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def findings(folder: Path, text: str, name: str = "dev.yaml") -> list[str]:
    """Return what is wrong with an environment, as the user reads it."""
    (folder / name).write_text(text)
    with pytest.raises(EnvironmentFilesError) as caught:
        load_environments(folder)
    return [str(finding) for finding in caught.value.findings]


def loaded(folder: Path, text: str) -> EnvironmentFile:
    """Return an environment that is right."""
    (folder / "dev.yaml").write_text(text)
    (environment,) = load_environments(folder)
    return environment


def test_files_of_this_repository_are_right() -> None:
    """Dev, staging and prod load, each named after its file."""
    names = [e.name for e in load_environments(ROOT / "environments")]
    assert names == ["dev", "prod", "staging"]


def test_ssh_is_for_named_networks(folder: Path) -> None:
    """A key and networks of one's own; the world is answered with what to do instead."""
    ssh = "extends: base.yaml\nregions: [eu-west-1]\nrunners:\n  ssh:\n    key_pair: team\n"
    part = loaded(folder, f"{ssh}    networks: [10.0.0.0/8, fd00::/16]\n").runners.ssh
    assert part is not None
    assert part.networks == ["10.0.0.0/8", "fd00::/16"]
    for network, cure in {
        "0.0.0.0/0": "name your own network",
        "::/0": "name your own network",
        "10.0.0.1/8": "must be a network like 10.0.0.0/8",
        "office": "must be a network like 10.0.0.0/8",
    }.items():
        (finding,) = findings(folder, f"{ssh}    networks: ['{network}']\n")
        assert cure in finding
    assert findings(folder, f"{ssh}    networks: []\n")


def test_a_file_starts_from_the_one_it_extends(folder: Path) -> None:
    """Mappings are merged key by key, lists and single values are replaced."""
    environment = loaded(
        folder,
        "extends: base.yaml\nregions: [eu-west-1]\nlimits:\n  max_runtime_minutes: 60\n"
        "tags:\n  Environment: dev\n",
    )
    assert environment.limits.max_runtime_minutes == 60
    assert environment.limits.idle_timeout_minutes == 20
    assert environment.tags == {"Application": "runsfleet", "Environment": "dev"}
    assert environment.regions == ["eu-west-1"]
    assert environment.github.secret_name == "runsfleet/github-app"


def test_extending_goes_several_files_deep(folder: Path) -> None:
    """A file may extend one that extends another; the nearest value wins."""
    (folder / "shared.yaml").write_text(
        "extends: base.yaml\nlimits:\n  max_runtime_minutes: 90\n  job_retention_days: 3\n"
    )
    environment = load_environment(folder / "shared.yaml")
    assert isinstance(environment, EnvironmentFile)
    (folder / "dev.yaml").write_text("extends: shared.yaml\nlimits:\n  max_runtime_minutes: 30\n")
    environment = load_environment(folder / "dev.yaml")
    assert isinstance(environment, EnvironmentFile)
    assert environment.limits.max_runtime_minutes == 30
    assert environment.limits.job_retention_days == 3
    assert environment.limits.idle_timeout_minutes == 20


def test_every_finding_at_once(folder: Path) -> None:
    """Each has its file and line, also when it stands in the base; values and cures are told."""
    (folder / "base.yaml").write_text(BASE.replace("360", "0"))
    found = findings(
        folder,
        "extends: base.yaml\n"
        "account: 111122223333\n"
        "region: us-east-1\n"
        "github:\n"
        "  runner_level: org\n"
        "  runner_group_id: 0\n"
        "runners:\n"
        "  spot: 'yes'\n"
        "  image: debian\n"
        "functions:\n"
        "  log_retention_days: 8\n"
        "network:\n"
        "  cidr: 10.0.0.0/8\n",
    )
    assert found == [
        "base.yaml:4: limits.max_runtime_minutes: must be greater than or equal to 1, got 0",
        "dev.yaml:2: account: must be text in quotes: YAML drops leading zeros, got 111122223333",
        "dev.yaml:3: region: there is no such key; did you mean regions?",
        "dev.yaml:5: github.runner_level: must be 'organization' or 'repository', got 'org'",
        "dev.yaml:6: github.runner_group_id: must be greater than or equal to 1, got 0",
        "dev.yaml:8: runners.spot: must be a valid boolean, got 'yes'",
        "dev.yaml:9: runners.image: must be 'ubuntu-24.04' or 'amazon-linux-2023', got 'debian'",
        (
            "dev.yaml:11: functions.log_retention_days: must be one of 1, 3, 5, 7, 14, 30, 60, 90, "
            "120, 150, 180, 365, 400, 545, 731, 1096, 1827, got 8"
        ),
        (
            "dev.yaml:13: network.cidr: must have a prefix of /16 to /24; use 10.91.0.0/16, "
            "got '10.0.0.0/8'"
        ),
    ]


def test_findings_of_all_files_together(folder: Path) -> None:
    """A wrong file does not hide what is wrong in the next."""
    (folder / "prod.yaml").write_text("extends: base.yaml\nfleet: x\n")
    found = findings(folder, "extends: base.yaml\nregions: [nowhere]\n")
    assert [finding.split(":")[0] for finding in found] == ["dev.yaml", "prod.yaml"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: bse.yaml\n", "dev.yaml:1: extends: there is no file 'bse.yaml' beside this one"),
        ("extends: dev.yaml\n", "dev.yaml:1: extends: files extend one another in a circle"),
        ("extends: [a]\n", "dev.yaml:1: extends: must be the name of a file beside this one"),
        ("- a\n", "dev.yaml:1: must be a mapping of keys to values"),
        ("a: [1\n", "dev.yaml:2: this is not YAML: expected ',' or ']'"),
        ("a: &x 1\nb: *y\n", "dev.yaml:2: this is not YAML: found undefined alias"),
        ("tags: {a: b, a: c}\n", "dev.yaml:1: tags.a: this key stands in line 1 already"),
        ("? [a]\n: b\n", "dev.yaml:1: a key must be plain text"),
        ("tags:\n  a: 2026-02-30\n", "dev.yaml:2: tags.a: cannot be read:"),
        ("a: !!python/name:os.system 1\n", "dev.yaml:1: this is not YAML"),
    ],
)
def test_what_is_wrong_with_the_file_itself(folder: Path, text: str, expected: str) -> None:
    """Syntax, structure and extends are told with their line too."""
    assert any(finding.startswith(expected) for finding in findings(folder, text))


def test_an_empty_file_lacks_what_is_required(folder: Path) -> None:
    """The key that has to be there is named."""
    assert findings(folder, "") == ["dev.yaml:1: github: is missing; add it"]


def test_a_secret_in_the_file_is_refused_and_not_shown(folder: Path) -> None:
    """A private key in the place of a name is a finding that does not repeat it."""
    key = "-----BEGIN RSA PRIVATE KEY-----MIIE"
    found = findings(folder, f"extends: base.yaml\ngithub:\n  secret_name: '{key}'\n")
    assert found == [
        (
            "dev.yaml:3: github.secret_name: must be the name of a secret, never its value; create "
            "the secret first, got what looks like a secret; put it into Secrets Manager and name "
            "it here"
        )
    ]


def test_both_secrets_are_kept_in_one_store(folder: Path) -> None:
    """One store or the other, and neither both nor none."""
    (folder / "base.yaml").write_text("tags: {}\n")
    for part in ("{}", "{secret_name: a, parameter_name: b}"):
        (finding,) = findings(folder, f"extends: base.yaml\ngithub: {part}\n")
        assert "needs secret_name (Secrets Manager) or parameter_name" in finding
    part = "{secret_name: a, webhook_parameter_name: b}"
    (finding,) = findings(folder, f"extends: base.yaml\ngithub: {part}\n")
    assert "use webhook_secret_name with secret_name" in finding


def test_aliases_are_judged_as_the_runtime_reads_them(folder: Path) -> None:
    """Each alias or image that no job could use is a finding at its own line."""
    found = findings(
        folder,
        "extends: base.yaml\n"
        "labels:\n"
        "  aliases:\n"
        "    - match: ubuntu-arm\n"
        "      spec: runner=4cpu-linux-arm64\n"
        "    - match: gpu\n"
        "      spec: runner=4cpu-plan9-arm64\n"
        "    - match: 'big-.*'\n"
        "      pattern: true\n"
        "      spec: cpu=8\n",
    )
    assert [finding.split(": ")[0:2] for finding in found] == [
        ["dev.yaml:7", "labels.aliases[1].spec"],
        ["dev.yaml:8", "labels.aliases[2].match"],
    ]


def test_an_existing_network_is_checked(folder: Path) -> None:
    """Each zone has its subnets, and a network belongs to a region of the environment."""
    found = findings(
        folder,
        "extends: base.yaml\n"
        "regions: [us-east-1]\n"
        "network:\n"
        "  vpcs:\n"
        "    us-east-1:\n"
        "      id: vpc-0a\n"
        "      availability_zones: [us-east-1a, us-east-1b]\n"
        "      public_subnet_ids: [subnet-0a]\n",
    )
    (finding,) = found
    assert finding.startswith("dev.yaml:5: network.vpcs.us-east-1: public_subnet_ids must be one")
    (finding,) = findings(
        folder,
        "extends: base.yaml\n"
        "regions: [us-east-1]\n"
        "network:\n"
        "  vpcs:\n"
        "    eu-west-1:\n"
        "      id: vpc-0a\n"
        "      availability_zones: [a]\n"
        "      public_subnet_ids: [subnet-0a]\n",
    )
    assert "network.vpcs has eu-west-1, which is none of regions" in finding


def test_no_environment_at_all(folder: Path) -> None:
    """A folder with a base alone says what to write."""
    with pytest.raises(EnvironmentFilesError, match=r"write one, for example dev\.yaml"):
        load_environments(folder)


def test_only_what_was_asked_for_is_read(folder: Path) -> None:
    """A wrong file does not stop another environment from being built alone."""
    (folder / "prod.yaml").write_text("nonsense: 1\n")
    (folder / "dev.yaml").write_text("extends: base.yaml\n")
    assert [e.name for e in load_environments(folder, ["dev"])] == ["dev"]


def test_caps_breaker_and_sweeps_are_taken_over(folder: Path) -> None:
    """Caps are whole numbers, the breaker has its usual numbers, a sweep may be off."""
    environment = loaded(
        folder,
        "extends: base.yaml\nlimits:\n  max_runners: 20\nbreaker:\n  threshold: 5\n"
        "housekeeping:\n  schedules:\n    old_jobs: cron(0 3 * * ? *)\n    dead_letters: off\n",
    )
    assert environment.limits.max_runners == 20
    assert environment.limits.max_runners_per_owner is None
    assert (environment.breaker.threshold, environment.breaker.cooldown_minutes) == (5, 30)
    assert environment.housekeeping.schedules == {
        HousekeepingTask.OLD_JOBS: "cron(0 3 * * ? *)",
        HousekeepingTask.DEAD_LETTERS: False,
    }


def test_wrong_caps_breaker_and_sweeps_are_told_at_once(folder: Path) -> None:
    """Each is a finding with its place."""
    found = findings(
        folder,
        "extends: base.yaml\nlimits:\n  max_runners: 0\nbreaker:\n  window_minutes: 0\n"
        "labels:\n  max_cpu: 192\n"
        "housekeeping:\n  schedules:\n    old_job: off\n    slots: every hour\n",
    )
    for place in (
        "limits.max_runners",
        "breaker.window_minutes",
        "labels.max_cpu",
        "housekeeping.schedules.old_job",
        "housekeeping.schedules.slots",
    ):
        assert [finding for finding in found if place in finding], place
