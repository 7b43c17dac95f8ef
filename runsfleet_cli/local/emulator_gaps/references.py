"""Turns references in a template into the names that a deployment gave.

Example:
    >>> DeployedNames(deployment, "123456789012", "eu-central-1").text("dev", {"Ref": "Role"})
    'dev-Role-1A2B'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runsfleet_cli.local.deploy import DeployedResource, Deployment

# `Fn::GetAtt ... Arn` by type, from the physical id; what is not here is told as unknown
_ARNS = {
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{id}",
    "AWS::DynamoDB::GlobalTable": "arn:aws:dynamodb:{region}:{account}:table/{id}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{id}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{id}",
    "AWS::S3::Bucket": "arn:aws:s3:::{id}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{id}:*",
    "AWS::SecretsManager::Secret": "{id}",
}


class DeployedNames:
    """Resolves `Ref`, `Fn::GetAtt Arn`, `Fn::Join` and `Fn::Sub`; what it cannot, it says.

    Args:
        deployment: What exists.
        account: Twelve digits.
        region: For example `eu-central-1`.
    """

    def __init__(self, deployment: Deployment, account: str, region: str) -> None:
        self._resources: dict[tuple[str, str], DeployedResource] = {
            (resource.stack, resource.logical_id): resource for resource in deployment.resources
        }
        self._pseudo = {
            "AWS::AccountId": account,
            "AWS::Region": region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
        }
        self._account = account
        self._region = region

    def text(self, stack: str, value: Any) -> str | None:
        """The text of a template value, or None if it cannot be told.

        Args:
            stack: Name of the template's stack.
            value: A string or an intrinsic function.
        """
        return self._resolve(stack, value, None)

    def pattern(self, stack: str, value: Any) -> str:
        """As `text`, with `*` for each part that cannot be told."""
        return self._resolve(stack, value, "*") or "*"

    def _resolve(self, stack: str, value: Any, unknown: str | None) -> str | None:
        if isinstance(value, str):
            return value
        if not isinstance(value, dict) or len(value) != 1:
            return unknown
        ((function, argument),) = value.items()
        if function == "Ref":
            return self._ref(stack, argument) or unknown
        if function == "Fn::GetAtt" and isinstance(argument, list):
            return self._attribute(stack, *argument) or unknown
        if function == "Fn::Join":
            parts = [self._resolve(stack, item, unknown) for item in argument[1]]
            return None if None in parts else str(argument[0]).join(map(str, parts))
        if function == "Fn::Sub" and isinstance(argument, str):
            text = argument
            for name, replacement in self._pseudo.items():
                text = text.replace(f"${{{name}}}", replacement)
            return text
        return unknown

    def _ref(self, stack: str, name: str) -> str | None:
        if name in self._pseudo:
            return self._pseudo[name]
        resource = self._find(stack, name)
        return resource.physical_id if resource is not None else None

    def _attribute(self, stack: str, name: str, attribute: str) -> str | None:
        resource = self._find(stack, name)
        if resource is None:
            return None
        if attribute in {"GroupId", "LaunchTemplateId", "VpcId"}:
            return resource.physical_id
        if attribute not in {"Arn", "Id"}:
            return None
        pattern = _ARNS.get(resource.type)
        if pattern is None:
            return None
        return pattern.format(region=self._region, account=self._account, id=resource.physical_id)

    def _find(self, stack: str, logical_id: str) -> DeployedResource | None:
        return self._resources.get((stack, logical_id))
