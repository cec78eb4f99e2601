"""What an account has before anybody does anything: the default bucket, and the execution role."""

from __future__ import annotations

import threading

import attrs
import orjson

from modeldeploy.simulate.sagemaker.cloud import Cloud

_FIRST_REGION = "us-east-1"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


@attrs.define(eq=False)
class Furniture:
    """Puts the bucket there at once, and the role when somebody first asks who may do what: few do, and it takes a third of a second."""

    cloud: Cloud
    _role: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def bucket(self) -> None:
        """Make the default bucket."""
        site = self.cloud.site
        place = (
            {} if site.region == _FIRST_REGION else {"CreateBucketConfiguration": {"LocationConstraint": site.region}}
        )
        self.cloud.client("s3").create_bucket(Bucket=site.bucket, **place)

    def asked(self, service: str) -> None:
        """Make the role before the first request to its service is answered; the request that makes it is not the first."""
        if service == "iam" and self._is_first():
            self.cloud.client("iam").create_role(
                RoleName=self.cloud.site.role.rpartition("/")[2],
                AssumeRolePolicyDocument=orjson.dumps(_TRUST).decode(),
                Description="What rehearsed models and jobs act as.",
            )

    def _is_first(self) -> bool:
        with self._lock:
            first, self._role = not self._role, True
            return first
