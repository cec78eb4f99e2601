"""The policy in the documents allows every call that the code makes, and nothing that it does not."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import modeldeploy.backends.sagemaker.backend as there

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backends" / "sagemaker.md"
FOLDER = Path(there.__file__).parent
SERVICES = {"sagemaker-runtime": "sagemaker"}
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


def constants(tree):
    """Read the texts that a module gives names to."""
    named = [each for each in tree.body if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant)]
    return {target.id: each.value.value for each in named for target in each.targets if isinstance(target, ast.Name)}


def calls(source):
    """Find ``call("service", "operation")`` and its kin."""
    tree = ast.parse(source)
    known = constants(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = node.func.attr
        values = [
            known.get(each.id) if isinstance(each, ast.Name) else getattr(each, "value", None) for each in node.args
        ]
        texts = [each for each in values if isinstance(each, str)]
        if name == "sagemaker" and texts:
            yield "sagemaker", texts[0]
        elif name in {"call", "pages"} and len(texts) >= 2:
            yield texts[0], texts[1]
        elif name == "using" and texts:
            yield "sagemaker", texts[0]
        elif name == "_call" and texts:
            yield "s3", texts[0]
        elif isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "_client" and "_object" in name:
            yield "s3", name


def needed():
    found = {each for path in FOLDER.glob("*.py") for each in calls(path.read_text(encoding="utf-8"))}
    named = {
        f"{SERVICES.get(service, service)}:{''.join(part.title() for part in operation.split('_'))}"
        for service, operation in found
    }
    return {ACTIONS.get(each, each) for each in named} - NEEDS_NONE


def policies():
    text = PAGE.read_text(encoding="utf-8")
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def allowed(policy):
    return [action for statement in policy["Statement"] for action in statement["Action"]]


def test_calls_are_found_in_every_form():
    source = 'a.call("logs", "get_log_events", x=1)\nb.sagemaker("create_model")\nself._call("put_object")\nself._client.head_object()'
    assert set(calls(source)) == {
        ("logs", "get_log_events"),
        ("sagemaker", "create_model"),
        ("s3", "put_object"),
        ("s3", "head_object"),
    }


def test_the_callers_policy_is_exact():
    caller = policies()[0]
    assert sorted(set(allowed(caller))) == sorted(needed() | BY_THE_SERVICE)


@pytest.mark.parametrize("number", [0, 1], ids=["caller", "role"])
def test_no_policy_allows_everything(number):
    policy = policies()[number]
    assert not any("*" in action for action in allowed(policy))
    assert policy["Version"] == "2012-10-17"
