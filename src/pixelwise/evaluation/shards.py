"""Evaluation in shards, on any number of machines, which merge exactly to the whole.

A part evaluates every n-th image, or every n-th clip. Its report holds what it counted, so that the joined numbers are
those of one evaluation to the last bit, whatever the order of the parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pixelwise.errors import DataError, PixelwiseError, RecipeError
from pixelwise.evaluation.report import REPORT_NAME, Evaluation
from pixelwise.evaluation.subject import Subject
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet
from pixelwise.metrics.choice import TaskMetric, metric_from_state

FORMAT_VERSION = 2

NAMED_SHARDS = 12
"""Number of missing shards that are named."""


@dataclass(frozen=True)
class Shard:
    """One of several parts.

    Attributes:
        number: which, from 1.
        count: how many there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse a shard such as `2/4`. Raises RecipeError for anything else."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise RecipeError(
                f"--shard {text}: expected I/N with I from 1 to N: the shards of 4 are 1/4, 2/4, 3/4, 4/4"
            )
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def part_of(self, indices: Sequence[int], clips: Sequence[str] | None = None) -> Sequence[int]:
        """Every count-th of them, or of their clips: the parts of all shards are all of them, each once.

        Args:
            indices: of images.
            clips: the clip of each image of the data set; all frames of one are of one part.
        """
        if clips is None:
            return indices[self.number - 1 :: self.count]
        names = dict.fromkeys(clips[index] for index in indices)
        mine = set(list(names)[self.number - 1 :: self.count])
        return [index for index in indices if clips[index] in mine]


def shard_to_json(evaluation: Evaluation, shard: Shard, subject: Subject) -> dict[str, Any]:
    """The report of a shard, with the data for merging under `shard`."""
    return {
        **evaluation.to_json(),
        "shard": {
            "format_version": FORMAT_VERSION,
            "number": shard.number,
            "count": shard.count,
            "whole": {"images": len(subject.considered), "ids": _digest(subject.dataset.ids)},
            "conditions": subject.conditions,
            "label_set": subject.dataset.labels.to_json(),
            "failures": list(evaluation.failures),
            "missing": list(evaluation.missing),
            "state": evaluation.metric.state(),
        },
    }


def merge_shards(paths: Sequence[Path]) -> Evaluation:
    """Merge the reports of all shards of an evaluation.

    Args:
        paths: the JSON that `evaluate --shard` printed, or folders that it wrote, in any order.

    Raises:
        DataError: a file is no such report, one is missing or stands twice, or they evaluate different things.
    """
    parts = [_read(path) for path in paths]
    first = parts[0]
    for part in parts[1:]:
        _require_same(first, part)
    at: dict[int, _Part] = {}
    for part in parts:
        number, count = part.stored.shard.number, part.stored.shard.count
        if number > count:
            raise DataError(f"{part.path}: shard {number}/{count}; evaluate this shard again")
        if number in at:
            raise DataError(f"{part.path}: shard {number}/{count} again, after {at[number].path}; give each once")
        at[number] = part
    count = first.stored.shard.count
    absent = [f"{number}/{count}" for number in range(1, count + 1) if number not in at]
    if absent:
        more = ", …" if len(absent) > NAMED_SHARDS else ""
        raise DataError(
            f"{len(absent)} of {count} shards are missing: {', '.join(absent[:NAMED_SHARDS])}{more}; "
            "give the files of all"
        )

    metrics: list[TaskMetric] = []
    for _, part in sorted(at.items()):
        try:
            metrics.append(metric_from_state(part.labels, part.stored.definition, part.stored.shard.state))
            if len(metrics) > 1:
                metrics[0].merge(metrics[-1])
        except PixelwiseError as error:
            raise DataError(f"{part.path}: {error}; evaluate this shard again") from None
    metric = metrics[0]
    blocks = [part.stored.shard for _, part in sorted(at.items())]
    failures = tuple(line for block in blocks for line in block.failures)
    missing = tuple(id for block in blocks for id in block.missing)
    accounted, total = len(metric.images) + len(failures) + len(missing), first.stored.shard.whole.images
    if accounted != total:
        raise DataError(f"{paths[0]} …: the shards have {accounted:,} images, {total:,} are in {first.stored.data}")
    seconds = sum(part.stored.seconds for part in parts)
    protocol = first.stored.shard.conditions.get("protocol")
    return Evaluation(
        first.stored.model,
        first.stored.data,
        metric,
        failures,
        missing,
        total,
        seconds,
        protocol=protocol if isinstance(protocol, dict) else None,
    )


class _Whole(BaseModel, strict=True):
    images: int
    ids: str


class _Shard(BaseModel, strict=True):
    format_version: int
    number: int = Field(ge=1)
    count: int = Field(ge=1, le=1_000_000)
    whole: _Whole
    conditions: dict[str, Any]
    label_set: dict[str, Any]
    failures: list[str]
    missing: list[str]
    state: dict[str, Any]


class _Report(BaseModel, strict=True):
    model: str
    data: str
    definition: str
    seconds: float
    shard: _Shard


@dataclass(frozen=True)
class _Part:
    """A report as read, before validation."""

    path: Path
    stored: _Report
    labels: LabelSet

    @property
    def evaluated(self) -> Mapping[str, Any]:
        """Values that must be equal in all shards."""
        block = self.stored.shard
        return {
            "data": self.stored.data,
            "model": self.stored.model,
            "definition": self.stored.definition,
            "labels": block.label_set,
            "shards": block.count,
            "images of the data": (block.whole.images, block.whole.ids),
            **block.conditions,
        }


_EXPECTED = "the JSON that evaluate --shard writes"


def _read(path: Path) -> _Part:
    path = path / REPORT_NAME if path.is_dir() else path
    content = read_json(path, expected=_EXPECTED)
    if not isinstance(content, dict) or not isinstance(content.get("shard"), dict):
        raise DataError(f"{path}: expected a shard of an evaluation, the output of evaluate --shard I/N --json")
    version = content["shard"].get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: shard format {version!r}, this pixelwise reads {FORMAT_VERSION}; evaluate this shard again"
        )
    try:
        stored = _Report.model_validate(content)
        return _Part(path, stored, LabelSet.from_json(stored.shard.label_set))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{path}: {place}: {fault['msg']}; evaluate this shard again") from None
    except DataError as error:
        raise DataError(f"{path}: {error}; evaluate this shard again") from None


def _require_same(first: _Part, other: _Part) -> None:
    mine, theirs = first.evaluated, other.evaluated
    for name in {**mine, **theirs}:
        if mine.get(name) != theirs.get(name):
            raise DataError(
                f"{other.path}: {name} {_shown(theirs.get(name))}, in {first.path} {_shown(mine.get(name))}; "
                "only shards of one evaluation can be joined"
            )


def _shown(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("names"), list):
        value = f"{value.get('name')} ({len(value['names'])}: {', '.join(map(str, value['names']))})"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
