"""Makes the template's buckets, queues and tables in moto, with boto3, as often as one likes.

CloudFormation in moto drops bucket notifications and crashes on APIs, and its event source mappings
need Docker, so neither is used. A type or property that is not understood is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from local.properties import Properties
from local.template import REGION, Resource, Template, TemplateError

Clients = dict[str, Any]

HANDLED_ELSEWHERE = {
    "AWS::Serverless::Function": "run by local.runtime",
    "AWS::Serverless::Api": "served by local.gateway",
}
TYPES_WITHOUT_LOCAL_EFFECT = {
    "AWS::IAM::Role": "enforced in front of moto (local.aws.role_check), if at all",
    "AWS::Lambda::Permission": "the gateway calls functions in its own process",
    "AWS::SQS::QueuePolicy": "moto's buckets may send to every queue",
    "AWS::S3::BucketPolicy": "moto has no callers to tell apart",
    "AWS::Logs::LogGroup": "functions log to files",
    "AWS::Serverless::LayerVersion": "functions import what is installed",
    "AWS::CloudWatch::Alarm": "nothing measures here",
}
BUCKET_WITHOUT_LOCAL_EFFECT = {"Tags": "nothing is billed"}
QUEUE_WITHOUT_LOCAL_EFFECT = {
    "Tags": "nothing is billed",
    "SqsManagedSseEnabled": "nothing is encrypted at rest",
}
TABLE_WITHOUT_LOCAL_EFFECT = {
    "Tags": "nothing is billed",
    "SSESpecification": "nothing is encrypted at rest",
    "PointInTimeRecoverySpecification": "there are no backups",
    "DeletionProtectionEnabled": "the state folder is the user's to delete",
}


def provision(template: Template, clients: Clients) -> None:
    """Create or update every resource of the template that moto keeps.

    Parameters
    ----------
    template
        The template, resolved for this endpoint.
    clients
        boto3 clients ``s3``, ``sqs`` and ``dynamodb``.

    Raises
    ------
    TemplateError
        A resource type or property is not understood.
    """
    makers: dict[str, Callable[[Template, Resource, Clients], None]] = {
        "AWS::SQS::Queue": _make_queue,
        "AWS::DynamoDB::Table": _make_table,
        "AWS::S3::Bucket": _make_bucket,
    }
    known = makers.keys() | HANDLED_ELSEWHERE.keys() | TYPES_WITHOUT_LOCAL_EFFECT.keys()
    for resource in template.resources.values():
        if resource.type not in known:
            raise TemplateError(
                f"The local cloud does not understand {resource.type} ({resource.logical_id})."
            )
    for type_name, make in makers.items():
        resources = template.of_type(type_name)
        # A queue names its dead-letter queue, which must exist before it.
        for resource in sorted(resources, key=lambda item: "RedrivePolicy" in item.properties):
            make(template, resource, clients)


def _read(template: Template, resource: Resource) -> Properties:
    return Properties(resource.logical_id, template.resolve(resource.properties))


def _make_queue(template: Template, resource: Resource, clients: Clients) -> None:
    properties = _read(template, resource)
    name = template.physical_name(resource.logical_id)
    properties.take("QueueName", None)
    attributes = properties.take_renamed(
        {
            same: same
            for same in (
                "DelaySeconds",
                "MaximumMessageSize",
                "MessageRetentionPeriod",
                "ReceiveMessageWaitTimeSeconds",
                "VisibilityTimeout",
            )
        }
    )
    redrive = properties.take_object("RedrivePolicy")
    if redrive:
        attributes["RedrivePolicy"] = json.dumps(
            {
                "deadLetterTargetArn": redrive.take("deadLetterTargetArn"),
                "maxReceiveCount": redrive.take("maxReceiveCount"),
            }
        )
        redrive.finish()
    properties.ignore(QUEUE_WITHOUT_LOCAL_EFFECT)
    properties.finish()
    wanted = {key: str(value) for key, value in attributes.items()}
    try:
        url = clients["sqs"].get_queue_url(QueueName=name)["QueueUrl"]
    except clients["sqs"].exceptions.QueueDoesNotExist:
        clients["sqs"].create_queue(QueueName=name, Attributes=wanted)
    else:
        clients["sqs"].set_queue_attributes(QueueUrl=url, Attributes=wanted)


def _make_table(template: Template, resource: Resource, clients: Clients) -> None:
    properties = _read(template, resource)
    name = template.physical_name(resource.logical_id)
    properties.take("TableName", None)
    definition = properties.take_renamed(
        {
            same: same
            for same in (
                "AttributeDefinitions",
                "KeySchema",
                "BillingMode",
                "GlobalSecondaryIndexes",
            )
        }
    )
    lifetime = properties.take_object("TimeToLiveSpecification")
    properties.ignore(TABLE_WITHOUT_LOCAL_EFFECT)
    properties.finish()
    dynamodb = clients["dynamodb"]
    try:
        existing = dynamodb.describe_table(TableName=name)["Table"]
    except dynamodb.exceptions.ResourceNotFoundException:
        dynamodb.create_table(TableName=name, **definition)
    else:
        if existing["KeySchema"] != definition["KeySchema"]:
            raise TemplateError(
                f"The table {name} exists with other keys; remove the state folder."
            )
    if lifetime:
        specification = {
            "AttributeName": lifetime.take("AttributeName"),
            "Enabled": lifetime.take("Enabled"),
        }
        lifetime.finish()
        current = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        enabled = current.get("TimeToLiveStatus") == "ENABLED"
        if enabled != specification["Enabled"]:
            dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=specification)


def _make_bucket(template: Template, resource: Resource, clients: Clients) -> None:
    s3 = clients["s3"]
    properties = _read(template, resource)
    name = template.physical_name(resource.logical_id)
    properties.take("BucketName", None)
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        location = (
            {}
            if REGION == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
        )
        s3.create_bucket(Bucket=name, **location)
    _configure_bucket(s3, name, properties)
    _notify_queues(s3, name, properties.take_object("NotificationConfiguration"))
    properties.ignore(BUCKET_WITHOUT_LOCAL_EFFECT)
    properties.finish()


def _configure_bucket(s3: Any, bucket: str, properties: Properties) -> None:
    """Settings that have the same shape in the template and in the SDK, or nearly."""
    if encryption := properties.take("BucketEncryption", None):
        s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [
                    {
                        (
                            "ApplyServerSideEncryptionByDefault"
                            if key == "ServerSideEncryptionByDefault"
                            else key
                        ): value
                        for key, value in rule.items()
                    }
                    for rule in encryption["ServerSideEncryptionConfiguration"]
                ]
            },
        )
    if access := properties.take("PublicAccessBlockConfiguration", None):
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=access)
    if ownership := properties.take("OwnershipControls", None):
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=ownership)
    if versioning := properties.take("VersioningConfiguration", None):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versioning)
    if cors := properties.take_object("CorsConfiguration"):
        rules = [_cors_rule(rule) for rule in cors.take_objects("CorsRules")]
        cors.finish()
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    if lifecycle := properties.take_object("LifecycleConfiguration"):
        rules = [_lifecycle_rule(rule) for rule in lifecycle.take_objects("Rules")]
        lifecycle.finish()
        s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )


def _cors_rule(rule: Properties) -> dict[str, Any]:
    converted = rule.take_renamed(
        {
            "Id": "ID",
            "AllowedHeaders": "AllowedHeaders",
            "AllowedMethods": "AllowedMethods",
            "AllowedOrigins": "AllowedOrigins",
            "ExposedHeaders": "ExposeHeaders",
            "MaxAge": "MaxAgeSeconds",
        }
    )
    rule.finish()
    return converted


def _lifecycle_rule(rule: Properties) -> dict[str, Any]:
    converted = rule.take_renamed(
        {
            "Id": "ID",
            "Status": "Status",
            "AbortIncompleteMultipartUpload": "AbortIncompleteMultipartUpload",
            "NoncurrentVersionExpiration": "NoncurrentVersionExpiration",
        }
    )
    converted["Filter"] = {"Prefix": rule.take("Prefix", "")}
    if days := rule.take("ExpirationInDays", None):
        converted["Expiration"] = {"Days": days}
    rule.finish()
    return converted


def _notify_queues(s3: Any, bucket: str, configuration: Properties | None) -> None:
    wanted: dict[str, list[dict[str, Any]]] = {"QueueConfigurations": []}
    if configuration:
        for position, target in enumerate(configuration.take_objects("QueueConfigurations")):
            entry = {
                "Id": f"{bucket}-{position}",
                "Events": [target.take("Event")],
                "QueueArn": target.take("Queue"),
            }
            if rules := target.take("Filter", None):
                entry["Filter"] = {"Key": {"FilterRules": rules["S3Key"]["Rules"]}}
            target.finish()
            wanted["QueueConfigurations"].append(entry)
        configuration.finish()
    current = s3.get_bucket_notification_configuration(Bucket=bucket)
    # Setting it again would send another test event to every queue.
    if current.get("QueueConfigurations", []) != wanted["QueueConfigurations"]:
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
