"""Who sent a request: a function, an instance, a role's session, or the operator.

Three sources, all of them observation: the answers of STS and IAM that pass by (temporary keys and
whom they were given to); the deployed functions' own keys (under IAM enforcement the emulator
derives a function's key from its ARN and role, so the list of functions tells them); and, where all
functions share the account's key (no enforcement), the environment of the process at the other end
of the connection, by Linux's /proc. Secrets learned here serve one purpose: to sign anew a request
that a fault or a gap had to rewrite.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest

Kind = Literal["function", "instance", "role", "user", "root", "anonymous", "unknown"]

_INSTANCE_SESSION = re.compile(r"^i-[0-9a-f]{8,17}$")
_ACCOUNT_KEY = re.compile(r"^\d{12}$")
# a key that no function has is looked for again after so many seconds: one may be new
_REFRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal.

    Args:
        kind: What it is.
        name: Function name, instance id, session name, user name.
        role: Its role's name, where it has one.
        user_id: `aws:userid`, `<role id>:<session>`, where known.
    """

    kind: Kind
    name: str = ""
    role: str = ""
    user_id: str = ""

    def __str__(self) -> str:
        if self.kind == "role":
            return f"role:{self.role}/{self.name}"
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Caller("anonymous")
ROOT = Caller("root")


@dataclass(frozen=True, slots=True)
class Key:
    """A credential that passed by.

    Args:
        caller: Whose it is.
        secret: To sign with.
        token: The session token; empty for permanent keys.
    """

    caller: Caller
    secret: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class DeployedFunction:
    """What the emulator derives a function's credentials from."""

    name: str
    arn: str
    role_arn: str


ListsFunctions = Callable[[str], Awaitable[list[DeployedFunction]]]


class CallerBook:
    """Resolves access keys and connections to callers.

    Args:
        list_functions: Asks the emulator for the functions of a region.
        root_keys: Keys of the operator, beside account numbers.
    """

    def __init__(
        self, list_functions: ListsFunctions, root_keys: frozenset[str] = frozenset({"test"})
    ) -> None:
        self._list_functions = list_functions
        self._root_keys = root_keys
        self._keys: dict[str, Key] = {}
        self._missed: dict[str, float] = {}

    async def resolve(
        self, access_key: str, region: str, peer: Callable[[], Caller | None], now: float
    ) -> Caller:
        """The caller behind a key.

        Args:
            access_key: From the signature, or empty.
            region: Where to look for functions.
            peer: Tells what the connection's process says about itself, if anything; asked only
                for the account's own number, which functions use where nothing is enforced.
            now: Unix time, seconds.
        """
        known = self._keys.get(access_key)
        if known is not None:
            return known.caller
        if not access_key:
            return ANONYMOUS
        if self.is_root(access_key):
            return (peer() if _ACCOUNT_KEY.match(access_key) else None) or ROOT
        if (
            access_key.startswith("ASIA")
            and now - self._missed.get(access_key, 0) > _REFRESH_SECONDS
        ):
            self._missed[access_key] = now
            for function in await self._list_functions(region):
                self._keys.setdefault(*function_key(function))
            known = self._keys.get(access_key)
        return known.caller if known is not None else Caller("unknown", access_key)

    def key(self, access_key: str) -> Key | None:
        """The credential, if it is known."""
        return self._keys.get(access_key)

    def is_root(self, access_key: str) -> bool:
        """Whether the emulator takes this key for the account's owner, and checks no signature."""
        return (
            not access_key or access_key in self._root_keys or bool(_ACCOUNT_KEY.match(access_key))
        )

    def learn(self, request: AwsRequest, answer: Answer) -> None:
        """Remember the credentials that an answer hands out."""
        if not answer.ok:
            return
        if request.service == "sts" and request.action.startswith("AssumeRole"):
            self._learn_session(_flat_xml(answer.body))
        elif request.is_call("iam", "CreateAccessKey"):
            values = _flat_xml(answer.body)
            caller = Caller("user", values.get("UserName", ""))
            self._keys[values.get("AccessKeyId", "")] = Key(
                caller, values.get("SecretAccessKey", "")
            )

    def _learn_session(self, values: dict[str, str]) -> None:
        role, _, session = values.get("Arn", "").partition(":assumed-role/")[2].rpartition("/")
        kind: Kind = "instance" if _INSTANCE_SESSION.match(session) else "role"
        caller = Caller(kind, session, role.rpartition("/")[2], values.get("AssumedRoleId", ""))
        self._keys[values.get("AccessKeyId", "")] = Key(
            caller, values.get("SecretAccessKey", ""), values.get("SessionToken", "")
        )


def function_key(function: DeployedFunction) -> tuple[str, Key]:
    """The credentials that MiniStack 1.5.33 gives a function under IAM enforcement.

    Source: `execution_credentials` of `ministack/core/lambda_runtime.py`: all three derive from
    the function's ARN and its role's.
    """
    digest = _sha256(f"{function.arn}:{function.role_arn}")
    role = function.role_arn.rpartition("/")[2]
    caller = Caller("function", function.name, role, f"{role}:{function.name}")
    key = Key(caller, secret=_sha256(f"secret:{digest}"), token=_sha256(f"token:{digest}"))
    return f"ASIA{digest[:16].upper()}", key


def functions_of(listing: dict[str, Any]) -> list[DeployedFunction]:
    """The functions of a ListFunctions answer."""
    return [
        DeployedFunction(item["FunctionName"], item["FunctionArn"], item.get("Role", ""))
        for item in listing.get("Functions", [])
    ]


class PeerProcesses:
    """Tells which function's process is at the other end of a local connection (Linux only).

    Looks only at processes of one process group, the emulator's; elsewhere, or when /proc does not
    say, the answer is None.

    Args:
        proc: Where the process file system is mounted.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._callers: dict[int, Caller | None] = {}

    def caller(self, group: int | None, peer_port: int, own_port: int) -> Caller | None:
        """The function whose process owns the connection `peer_port` -> `own_port`.

        Args:
            group: Process group to search: that of the emulator.
            peer_port: The client's port on this machine.
            own_port: The port that it connected to.
        """
        if group is None:
            return None
        try:
            inode = self._inode(peer_port, own_port)
            if inode is None:
                return None
            for pid in self._group_members(group):
                if self._owns(pid, inode):
                    return self._describe(pid)
        except OSError:
            return None
        return None

    def _inode(self, peer_port: int, own_port: int) -> str | None:
        local, remote = f":{peer_port:04X}", f":{own_port:04X}"
        for line in (self._proc / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(local) and fields[2].endswith(remote):
                return fields[9]
        return None

    def _group_members(self, group: int) -> list[int]:
        members = []
        for entry in self._proc.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            # pid (name) state ppid pgrp ...; the name may hold spaces and brackets
            if int(stat.rpartition(")")[2].split()[2]) == group:
                members.append(int(entry.name))
        return members

    def _owns(self, pid: int, inode: str) -> bool:
        wanted = f"socket:[{inode}]"
        try:
            return any(
                str(descriptor.readlink()) == wanted
                for descriptor in (self._proc / str(pid) / "fd").iterdir()
            )
        except OSError:
            return False

    def _describe(self, pid: int) -> Caller | None:
        if pid not in self._callers:
            raw = (self._proc / str(pid) / "environ").read_bytes().decode("utf-8", "replace")
            environment = dict(line.partition("=")[::2] for line in raw.split("\0") if "=" in line)
            name = environment.get("AWS_LAMBDA_FUNCTION_NAME")
            self._callers[pid] = Caller("function", name) if name else None
        return self._callers[pid]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _flat_xml(body: bytes) -> dict[str, str]:
    """Leaf names to texts. The body is the emulator's own, on this machine."""
    try:
        root = ET.fromstring(body)  # noqa: S314
    except ET.ParseError:
        return {}
    return {node.tag.rpartition("}")[2]: node.text or "" for node in root.iter() if len(node) == 0}
