"""Where things are in the simulated cloud, and what they are called."""

from __future__ import annotations

import attrs


@attrs.frozen
class Site:
    """One account in one region."""

    region: str
    account: str

    def arn(self, kind: str, name: str) -> str:
        """Name a resource of SageMaker; the service writes these in lower case."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name.lower()}"

    def log_stream_arn(self, group: str, stream: str) -> str:
        """Name a stream of CloudWatch Logs."""
        return f"arn:aws:logs:{self.region}:{self.account}:log-group:{group}:log-stream:{stream}"

    @property
    def role(self) -> str:
        """The execution role that models of this account are created with."""
        return f"arn:aws:iam::{self.account}:role/modeldeploy-rehearsal"

    @property
    def bucket(self) -> str:
        """The account's default bucket, by the name that SageMaker's own tools give to it."""
        return f"sagemaker-{self.region}-{self.account}"
