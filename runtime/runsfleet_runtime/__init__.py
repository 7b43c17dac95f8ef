"""What runs in AWS: the fleet's Lambda handlers and the instance agent. Never imports aws_cdk."""
