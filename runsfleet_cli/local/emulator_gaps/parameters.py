"""SSM's Parameter Store: AWS's own public parameters, and the size limit of standard ones."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from runsfleet_cli.local.interceptor.answers import error_answer, json_answer

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
    from runsfleet_cli.local.interceptor.backend import Backend
    from runsfleet_cli.local.interceptor.proxy import Forward

# PutParameter, Tier: standard up to 4 KB, advanced up to 8 KB (botocore's SSM model)
STANDARD_LIMIT = 4_096
ADVANCED_LIMIT = 8_192
# the public images that MiniStack has none of
_PUBLIC_IMAGE = re.compile(
    r"^/aws/service/(canonical/ubuntu/.+/ami-id|ami-amazon-linux-latest/.+"
    r"|ami-windows-latest/.+|debian/release/.+)$"
)


class StandardParametersAreSmall:
    """A standard parameter holds 4 KB; MiniStack takes any size."""

    def wants(self, request: AwsRequest) -> bool:
        """PutParameter."""
        return request.is_call("ssm", "PutParameter")

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Refuse what is too long for its tier."""
        size = len(str(request.parameters.get("Value", "")).encode())
        tier = request.parameters.get("Tier", "Standard")
        if tier == "Standard" and size > STANDARD_LIMIT:
            message = (
                "Standard tier parameters support a maximum parameter value of 4096 characters. "
                "To create a larger parameter value, upgrade the parameter to use the "
                "advanced-parameter tier."
            )
            return error_answer(request, "ValidationException", 400, message)
        if size > ADVANCED_LIMIT:
            message = (
                "Advanced tier parameters support a maximum parameter value of 8192 characters."
            )
            return error_answer(request, "ValidationException", 400, message)
        return await forward(request)


class PublicParameters:
    """Stands in for the public image parameters that MiniStack lacks (Ubuntu, arm64, Windows).

    The image id derives from the parameter's name: stable, well-formed, and of no real image.

    Args:
        backend: Asked for what it has.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def wants(self, request: AwsRequest) -> bool:
        """GetParameter of a public image."""
        name = str(request.parameters.get("Name", ""))
        return request.is_call("ssm", "GetParameter") and bool(_PUBLIC_IMAGE.match(name))

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """The emulator's value if it has one, else a stand-in."""
        answer = await forward(request)
        if answer.ok or b"ParameterNotFound" not in answer.body:
            return answer
        name = str(request.parameters["Name"])
        region = request.operation.region
        return json_answer(
            {
                "Parameter": {
                    "Name": name,
                    "Type": "String",
                    "Value": stand_in_image(name),
                    "Version": 1,
                    "LastModifiedDate": request.now,
                    "ARN": f"arn:aws:ssm:{region}::parameter{name}",
                    "DataType": "aws:ec2:image",
                }
            }
        )

    async def resolve(self, name: str, region: str) -> str:
        """The image that `resolve:ssm:<name>` means; empty if there is no such parameter."""
        answer = await self._backend.ask(
            "ssm", "GetParameter", {"Name": name}, target="AmazonSSM", region=region
        )
        if answer.ok:
            return str(json.loads(answer.body)["Parameter"]["Value"])
        return stand_in_image(name) if _PUBLIC_IMAGE.match(name) else ""


def stand_in_image(name: str) -> str:
    """A well-formed image id for a public parameter's name."""
    return f"ami-{hashlib.sha256(name.encode()).hexdigest()[:17]}"
