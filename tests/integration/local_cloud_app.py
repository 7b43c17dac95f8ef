"""A small app with everything that the base of the local cloud has to carry.

Run with the folder to synthesize into.
"""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs

ACCOUNT = "123456789012"
REGION = "us-east-1"
FUNCTIONS = Path(__file__).with_name("local_cloud_functions")


class _BaseStack(cdk.Stack):
    def __init__(self, scope: cdk.App, name: str, *, env: cdk.Environment) -> None:
        super().__init__(scope, name, env=env)
        vpc = ec2.Vpc(
            self,
            "Vpc",
            max_azs=2,
            nat_gateways=1,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="public", subnet_type=ec2.SubnetType.PUBLIC),
                ec2.SubnetConfiguration(
                    name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS
                ),
            ],
        )
        runner_role = iam.Role(
            self, "RunnerRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com")
        )
        template = ec2.LaunchTemplate(
            self,
            "Template",
            role=runner_role,
            require_imdsv2=True,
            machine_image=ec2.MachineImage.resolve_ssm_parameter_at_launch(
                "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"
            ),
            user_data=ec2.UserData.custom("#!/bin/sh\necho hello"),
        )
        queue = sqs.Queue(
            self, "Jobs", fifo=True, visibility_timeout=cdk.Duration.seconds(120), enforce_ssl=True
        )
        table = dynamodb.TableV2(
            self,
            "Rows",
            partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        secret = secretsmanager.Secret(
            self, "Secret", secret_string_value=cdk.SecretValue.unsafe_plain_text("hush")
        )
        intake = self._function("Intake", {"SECRET": secret.secret_arn, "QUEUE": queue.queue_url})
        secret.grant_read(intake)
        queue.grant_send_messages(intake)
        worker = self._function(
            "Worker",
            {
                "QUEUE": queue.queue_url,
                "TABLE": table.table_name,
                "TEMPLATE": template.launch_template_id or "",
                "SUBNETS": ",".join(
                    vpc.select_subnets(subnet_type=ec2.SubnetType.PUBLIC).subnet_ids
                ),
            },
        )
        worker.add_event_source(
            sources.SqsEventSource(queue, batch_size=10, report_batch_item_failures=True)
        )
        table.grant_write_data(worker)
        worker.add_to_role_policy(
            iam.PolicyStatement(
                actions=["ec2:CreateFleet", "ec2:RunInstances"],
                resources=[
                    f"arn:aws:ec2:{REGION}:{ACCOUNT}:{kind}/*"
                    for kind in ("launch-template", "subnet", "network-interface", "volume")
                ],
            )
        )
        worker.add_to_role_policy(
            iam.PolicyStatement(
                actions=["ec2:CreateFleet", "ec2:RunInstances"],
                resources=[
                    f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/*",
                    f"arn:aws:ec2:{REGION}:{ACCOUNT}:fleet/*",
                ],
                conditions={"StringEqualsIfExists": {"aws:RequestTag/runsfleet:fleet": "base"}},
            )
        )
        worker.add_to_role_policy(
            iam.PolicyStatement(
                actions=["ec2:CreateTags"],
                resources=[f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/*"],
                conditions={"StringEquals": {"ec2:CreateAction": "CreateFleet"}},
            )
        )
        worker.add_to_role_policy(
            iam.PolicyStatement(actions=["iam:PassRole"], resources=[runner_role.role_arn])
        )
        self._runner_permissions(runner_role, table)
        api = apigateway.HttpApi(self, "Api")
        api.add_routes(
            path="/webhook",
            methods=[apigateway.HttpMethod.POST],
            integration=integrations.HttpLambdaIntegration("Intake", intake),
        )
        events_queue = sqs.Queue(self, "Events", enforce_ssl=True)
        events.Rule(
            self,
            "SpotWarnings",
            event_pattern=events.EventPattern(
                source=["aws.ec2", "test.ec2"],
                detail_type=["EC2 Spot Instance Interruption Warning"],
            ),
            targets=[targets.SqsQueue(events_queue)],
        )
        self._left_out(queue)
        cdk.CfnOutput(self, "WebhookUrl", value=f"{api.api_endpoint}/webhook")
        cdk.CfnOutput(self, "JobsQueueUrl", value=queue.queue_url)
        cdk.CfnOutput(self, "TableName", value=table.table_name)
        cdk.CfnOutput(self, "TemplateId", value=template.launch_template_id or "")
        cdk.CfnOutput(self, "EventsQueueUrl", value=events_queue.queue_url)
        cdk.CfnOutput(self, "RunnerRoleArn", value=runner_role.role_arn)
        cdk.CfnOutput(self, "Subnet", value=vpc.public_subnets[0].subnet_id)

    def _function(self, name: str, environment: dict[str, str]) -> lambda_.Function:
        return lambda_.Function(
            self,
            name,
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler=f"functions.{name.lower()}",
            code=lambda_.Code.from_asset(str(FUNCTIONS), exclude=["__pycache__"]),
            environment=environment,
            timeout=cdk.Duration.seconds(30),
        )

    @staticmethod
    def _runner_permissions(role: iam.Role, table: dynamodb.TableV2) -> None:
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["ec2:TerminateInstances"],
                resources=["*"],
                conditions={"StringLike": {"aws:userid": "*:${ec2:InstanceID}"}},
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["dynamodb:GetItem"],
                resources=[table.table_arn],
                conditions={
                    "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:userid}"]}
                },
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringEquals": {"cloudwatch:namespace": "Base"}},
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["ec2:CreateTags"],
                resources=["arn:aws:ec2:*:*:instance/*"],
                conditions={"StringEquals": {"aws:ResourceTag/runsfleet:fleet": "base"}},
            )
        )

    def _left_out(self, queue: sqs.Queue) -> None:
        simple = queue.metric_approximate_number_of_messages_visible().create_alarm(
            self, "Visible", threshold=10, evaluation_periods=1
        )
        cloudwatch.MathExpression(
            expression="a * 2", using_metrics={"a": queue.metric_number_of_messages_sent()}
        ).create_alarm(self, "Doubled", threshold=10, evaluation_periods=1)
        cloudwatch.CompositeAlarm(self, "Both", alarm_rule=cloudwatch.AlarmRule.any_of(simple))


if __name__ == "__main__":
    the_app = cdk.App(outdir=sys.argv[1])
    _BaseStack(the_app, "LocalBase", env=cdk.Environment(account=ACCOUNT, region=REGION))
    the_app.synth()
