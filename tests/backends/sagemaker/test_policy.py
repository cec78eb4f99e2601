"""The policy in the documents allows every call that the code makes, and nothing that it does not."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

import modeldeploy.backends.sagemaker.backend as there

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backends" / "sagemaker.md"
FOLDER = Path(there.__file__).parent
# Service of boto3 to the prefix of its actions.
SERVICES = {
    "sts": "sts",
    "logs": "logs",
    "cloudwatch": "cloudwatch",
    "application-autoscaling": "application-autoscaling",
    "s3": "s3",
    "sagemaker-runtime": "sagemaker",
    "sagemaker": "sagemaker",
}
# IAM's own names where they are not the operation's (service authorization reference of Amazon S3 and SageMaker).
ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:DeleteObjects": "s3:DeleteObject",
}
# Asked of the caller by the service itself: tags on what is created, the role that is handed over.
BY_THE_SERVICE = {"sagemaker:AddTags", "iam:PassRole", "iam:CreateServiceLinkedRole"}
NEEDS_NONE = {"sts:GetCallerIdentity"}


def operations():
    """Give every operation of the services that are used, by its name in boto3: service and IAM's action."""
    loader, found = botocore.session.get_session(), {}
    for service, prefix in SERVICES.items():
        for name in loader.get_service_model(service).operation_names:
            found[xform_name(name)] = f"{prefix}:{name}"
    return found


def mentioned(source):
    """Name what a module calls or says as a text of its own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("client"):
            yield node.attr


def needed():
    known = operations()
    said = {name for path in FOLDER.glob("*.py") for name in mentioned(path.read_text(encoding="utf-8"))}
    return {ACTIONS.get(known[name], known[name]) for name in said if name in known} - NEEDS_NONE


def policies():
    text = PAGE.read_text(encoding="utf-8")
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def allowed(policy):
    return [action for statement in policy["Statement"] for action in statement["Action"]]


def test_calls_are_found_in_every_form():
    source = 'a.call("logs", "get_log_events", x=1)\nb.sagemaker("create_model")\nself._client.head_object()'
    assert {"get_log_events", "create_model", "head_object"} <= set(mentioned(source)) & operations().keys()


def test_the_callers_policy_is_exact():
    caller = policies()[0]
    assert sorted(set(allowed(caller))) == sorted(needed() | BY_THE_SERVICE)


@pytest.mark.parametrize("number", [0, 1], ids=["caller", "role"])
def test_no_policy_allows_everything(number):
    policy = policies()[number]
    assert not any("*" in action for action in allowed(policy))
    assert policy["Version"] == "2012-10-17"
