"""Binary tensors through a provider that passes on no header but the content type.

SageMaker strips every header of a request but ``Content-Type``, ``Accept`` and its own, so the length of the JSON part travels inside the
content type, as Triton's server on SageMaker has it: ``application/vnd.sagemaker-triton.binary+json;json-header-size=NUMBER``.
"""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "application/vnd.sagemaker-triton.binary+json;json-header-size="
HEADER = "inference-header-content-length"
"""The same number where headers are passed on: the binary extension of the Open Inference Protocol V2."""
_PLAIN = "application/octet-stream"


def is_binary(content_type: str) -> bool:
    """Whether a body of this type is a V2 request or answer with binary tensors."""
    return content_type.replace(" ", "").lower().startswith(PREFIX)


def folded(headers: Mapping[str, str]) -> dict[str, str]:
    """Move the length from its header into the content type; other headers stay as they are.

    >>> folded({"content-type": "application/octet-stream", "inference-header-content-length": "12"})
    {'content-type': 'application/vnd.sagemaker-triton.binary+json;json-header-size=12'}
    """
    if HEADER not in headers:
        return dict(headers)
    rest = {name: value for name, value in headers.items() if name != HEADER}
    return {**rest, "content-type": f"{PREFIX}{headers[HEADER]}"}


def unfolded(headers: Mapping[str, str]) -> dict[str, str]:
    """Move the length from the content type back into its header, the inverse of ``folded``.

    >>> unfolded({"content-type": "application/vnd.sagemaker-triton.binary+json;json-header-size=12"})
    {'content-type': 'application/octet-stream', 'inference-header-content-length': '12'}
    """
    kind = headers.get("content-type", "")
    if not is_binary(kind):
        return dict(headers)
    return {**headers, "content-type": _PLAIN, HEADER: kind.rpartition("=")[2].strip()}
