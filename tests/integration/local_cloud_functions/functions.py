"""The two functions of the small app that the local cloud is tested with."""

import json
import os
import time
from functools import cache
from typing import Any

import boto3


@cache
def _client(name: str) -> Any:
    make: Any = boto3.client
    return make(name)


def intake(event: dict[str, Any], context: object) -> dict[str, Any]:
    """HTTP API -> FIFO queue."""
    body = event["body"]
    job = json.loads(body)
    secret = _client("secretsmanager").get_secret_value(SecretId=os.environ["SECRET"])
    _client("sqs").send_message(
        QueueUrl=os.environ["QUEUE"],
        MessageBody=body,
        MessageGroupId=job["id"],
        MessageDeduplicationId=job["id"],
    )
    length = len(secret["SecretString"])
    return {"statusCode": 202, "body": json.dumps({"path": event["rawPath"], "secret": length})}


def worker(event: dict[str, Any], context: object) -> dict[str, Any]:
    """FIFO queue -> one CreateFleet and one row a message; or a message put off."""
    failures = []
    for record in event["Records"]:
        job = json.loads(record["body"])
        received = int(record["attributes"]["ApproximateReceiveCount"])
        if job.get("put_off") and received == 1:
            _write(job["id"], "first", {"at": {"N": str(time.time())}})
            _client("sqs").change_message_visibility(
                QueueUrl=os.environ["QUEUE"],
                ReceiptHandle=record["receiptHandle"],
                VisibilityTimeout=job["put_off"],
            )
            failures.append({"itemIdentifier": record["messageId"]})
            continue
        launched = _launch(job) if job.get("launch") else []
        _write(
            job["id"],
            "done",
            {
                "at": {"N": str(time.time())},
                "received": {"N": str(received)},
                "instances": {"L": [{"S": one} for one in launched]},
            },
        )
    return {"batchItemFailures": failures}


def _launch(job: dict[str, Any]) -> list[str]:
    fleet = _client("ec2").create_fleet(
        Type="instant",
        ClientToken=job["id"],
        LaunchTemplateConfigs=[
            {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateId": os.environ["TEMPLATE"],
                    "Version": "$Latest",
                },
                "Overrides": [
                    {"InstanceType": kind, "SubnetId": subnet, "Priority": priority}
                    for priority, kind in enumerate(("c7g.xlarge", "m7g.xlarge"))
                    for subnet in os.environ["SUBNETS"].split(",")
                ],
            }
        ],
        TargetCapacitySpecification={
            "TotalTargetCapacity": job["launch"],
            "DefaultTargetCapacityType": "spot",
        },
        SpotOptions={"AllocationStrategy": "capacity-optimized-prioritized"},
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": "runsfleet:fleet", "Value": "base"}],
            }
        ],
    )
    return [one for item in fleet["Instances"] for one in item["InstanceIds"]]


def _write(job: str, state: str, more: dict[str, Any]) -> None:
    _client("dynamodb").transact_write_items(
        TransactItems=[
            {
                "Put": {
                    "TableName": os.environ["TABLE"],
                    "Item": {"id": {"S": f"{job}#{state}"}, **more},
                    "ConditionExpression": "attribute_not_exists(id)",
                }
            }
        ]
    )
