"""The data of a Batch Transform: objects cut into records, records put into payloads, answers put together again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from modeldeploy.simulate.sagemaker import jsonpath

CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
STRUCTURED = frozenset({CSV, JSON, JSON_LINES})
_OUTPUT, _INPUT = "SageMakerOutput", "SageMakerInput"


class RecordError(Exception):
    """An object cannot be transformed because of what is in it or in its answers."""


def split(data: bytes, kind: str) -> list[bytes]:
    """Cut an object into its records; empty lines are none."""
    if kind == "Line":
        return [line for line in (each.rstrip(b"\r") for each in data.split(b"\n")) if line.strip()]
    return [data]


def payloads(records: Sequence[bytes], *, several: bool, limit: int) -> Iterator[list[bytes]]:
    """Put as many records into each payload as fit, or one; RecordError for a record that is too large by itself."""
    batch: list[bytes] = []
    size = 0
    for record in records:
        if limit and len(record) > limit:
            message = f"a record of {len(record)} bytes is larger than the payload limit of {limit} bytes"
            raise RecordError(message)
        if batch and (not several or (limit and size + len(record) + 1 > limit)):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield batch


def assemble(answers: Sequence[bytes], how: str) -> bytes:
    """Put the answers together, each on lines of its own where that is asked for."""
    if how == "Line":
        return b"".join(answer.rstrip(b"\n") + b"\n" for answer in answers)
    return b"".join(answers)


@attrs.frozen
class Processing:
    """What is taken out before the model sees a record, joined with its answer, and taken out of that."""

    content_type: str
    lines: bool
    input_filter: str = "$"
    output_filter: str = "$"
    join: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done."""
        return self.input_filter in {"", "$"} and self.output_filter in {"", "$"} and not self.join

    def before(self, records: Sequence[bytes]) -> list[bytes]:
        """Give what the model is to see."""
        if self.input_filter in {"", "$"}:
            return list(records)
        take = jsonpath.compile_path(self.input_filter)
        return [self._write(self._take(take, self._read(record))) for record in records]

    def after(self, records: Sequence[bytes], answer: bytes) -> bytes:
        """Join an answer with the records that it is about, and take out what is asked for."""
        if self.output_filter in {"", "$"} and not self.join:
            return answer
        answers = split(answer, "Line") if self.lines else [answer]
        if len(answers) != len(records):
            message = f"{len(records)} records were answered with {len(answers)}"
            raise RecordError(message)
        take = jsonpath.compile_path(self.output_filter)
        joined = [
            self._joined(self._read(record), self._read(each)) for record, each in zip(records, answers, strict=True)
        ]
        return b"\n".join(self._write(self._take(take, each)) for each in joined)

    def _joined(self, record: Any, answer: Any) -> Any:
        if not self.join:
            return answer
        if self.content_type == CSV:
            return [*record, *answer]
        if isinstance(record, dict):
            return {**record, _OUTPUT: answer}
        return {_INPUT: record, _OUTPUT: answer}

    @staticmethod
    def _take(take: jsonpath.Step, value: Any) -> Any:
        try:
            return take(value)
        except jsonpath.NoMatchError as error:
            message = f"a filter finds nothing at {error} in a record"
            raise RecordError(message) from error

    def _read(self, record: bytes) -> Any:
        try:
            text = record.decode("utf-8")
            return next(csv.reader([text])) if self.content_type == CSV else json.loads(text)
        except (ValueError, StopIteration) as error:
            message = f"Failed to parse a record as {self.content_type}"
            raise RecordError(message) from error

    def _write(self, value: Any) -> bytes:
        if self.content_type != CSV:
            return json.dumps(value).encode()
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(value if isinstance(value, list) else [value])
        return buffer.getvalue().encode()
