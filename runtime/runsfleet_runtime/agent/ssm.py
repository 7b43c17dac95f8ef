"""Runner configurations in Parameter Store, in parts. Satisfies ``ReadsConfiguration``.

Gotcha: the parts are read one by one and in order. A condition on a parameter's tag, which is what
keeps other instances out, does not apply to reading by path; and a part that is not there yet is
refused (AccessDenied) rather than not found, because it has no tag.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from runsfleet_runtime.contract.paths import runner_config_parameter

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

    from runsfleet_runtime.agent.aws import AwsClients

MOST_PARTS = 16  # 64 KB; a configuration has two or three
_ABSENT = frozenset({"ParameterNotFound", "AccessDeniedException"})


class SsmConfigurations:
    """Reads the parameters of this instance.

    Args:
        clients: AWS.
        prefix: The fleet's prefix.
    """

    def __init__(self, clients: AwsClients, *, prefix: str) -> None:
        self._clients = clients
        self._prefix = prefix

    def read(self, instance_id: str, *, now: float) -> str | None:  # noqa: ARG002  the port's
        """Return the configuration; ``None`` while parts of it are missing.

        A part of a JSON object is never itself one, so the text tells when it is whole.
        """
        from botocore.exceptions import ClientError

        client = cast("SSMClient", self._clients.client("ssm"))
        text = ""
        for part in range(MOST_PARTS):
            name = runner_config_parameter(self._prefix, instance_id, part)
            try:
                answer = client.get_parameter(Name=name, WithDecryption=True)
            except ClientError as error:
                if error.response["Error"]["Code"] in _ABSENT:
                    return None
                raise
            text += answer["Parameter"]["Value"]
            if _is_whole(text):
                return text
        return None


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
