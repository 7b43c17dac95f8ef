"""A runner's files and inputs: JIT configuration, credentials, ``.env`` and arguments."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INPUT_PREFIX = "ACTIONS_RUNNER_INPUT_"
FILES = (".runner", ".credentials", ".credentials_rsaparams")


class SettingsError(Exception):
    """The runner cannot run with what it was given."""


@dataclass(frozen=True)
class Settings:
    """What a configured runner knows.

    Attributes:
        name: The runner's name.
        ephemeral: It takes one job.
        server_url: Root of the service's runner endpoints.
        work_folder: Name of the work folder inside the runner's root.
        client_id: Whom it signs in as.
        authorization_url: Where it signs in.
        rsa: Its key's parameters, base64 of big-endian numbers.
    """

    name: str
    ephemeral: bool
    server_url: str
    work_folder: str
    client_id: str
    authorization_url: str
    rsa: Mapping[str, str]


def arguments(argv: Sequence[str], environ: MutableMapping[str, str]) -> dict[str, str]:
    """Read ``--name value`` and flags, then ``ACTIONS_RUNNER_INPUT_*``, which are taken away.

    They are removed because they hold secrets that a job must not see.
    """
    found: dict[str, str] = {}
    index = 0
    while index < len(argv):
        word = argv[index]
        if word.startswith("--"):
            has_value = index + 1 < len(argv) and not argv[index + 1].startswith("--")
            found[word[2:].lower()] = argv[index + 1] if has_value else "true"
            index += 2 if has_value else 1
        else:
            index += 1
    for key in [name for name in environ if name.startswith(INPUT_PREFIX)]:
        found.setdefault(key[len(INPUT_PREFIX) :].lower(), environ.pop(key))
    return found


def write_jit(encoded: str, root: Path) -> None:
    """Write the files of a JIT configuration into the runner's root.

    Raises:
        SettingsError: When the text is no JIT configuration.
    """
    try:
        files = json.loads(base64.b64decode(encoded, validate=True))
        contents = {name: base64.b64decode(files[name]) for name in FILES}
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"the jitconfig cannot be decoded: {error}") from error
    write_files({name: content.decode() for name, content in contents.items()}, root)


def write_files(files: Mapping[str, str], root: Path) -> None:
    """Write configuration files, readable by their owner only."""
    for name in FILES:
        path = root / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(files[name])


def read_settings(root: Path) -> Settings:
    """Read the configuration in the runner's root.

    Raises:
        SettingsError: When the runner is not configured.
    """
    try:
        runner, credentials, rsa = (
            json.loads((root / name).read_text(encoding="utf-8")) for name in FILES
        )
        return Settings(
            name=runner["AgentName"],
            ephemeral=str(runner.get("Ephemeral", "false")).lower() == "true",
            server_url=runner["ServerUrlV2"].rstrip("/"),
            work_folder=runner.get("WorkFolder") or "_work",
            client_id=credentials["Data"]["ClientId"],
            authorization_url=credentials["Data"]["AuthorizationUrlV2"],
            rsa=rsa,
        )
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(
            "Not configured. Run config.(sh/cmd) to configure the runner."
        ) from error


def load_environment(root: Path, environ: MutableMapping[str, str]) -> None:
    """Take ``.env`` (``NAME=value`` lines) and ``.path`` of the root into the environment."""
    env_file, path_file = root / ".env", root / ".path"
    if env_file.is_file():
        for line in env_file.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip() and not name.startswith("#"):
                environ[name.strip()] = value
    if path_file.is_file():
        environ["PATH"] = path_file.read_text(encoding="utf-8").strip()
