"""Durations as the service writes them: ``PT5S``, ``PT1M30.5S``, ``P1D``."""

from __future__ import annotations

import re

from modeldeploy.simulate.azureml.errors import bad_request

_FORM = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_SECONDS = (86_400.0, 3_600.0, 60.0, 1.0)


def seconds(text: str) -> float:
    """Read a duration in seconds.

    >>> seconds("PT1M30.5S")
    90.5
    """
    found = _FORM.fullmatch(text)
    if found is None or not any(found.groups()):
        message = f"{text} is not a duration."
        raise bad_request(message)
    return sum(float(part or 0) * each for part, each in zip(found.groups(), _SECONDS, strict=True))
