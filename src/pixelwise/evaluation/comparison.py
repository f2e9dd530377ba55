"""Comparison of models over the same images: metrics, parameters, operations, latency and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError
from pixelwise.evaluation.peak_memory import peak_memory
from pixelwise.evaluation.subject import Subject
from pixelwise.files.images import read_image
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.choice import TaskMetric, shown

TIMED_IMAGES = 8
"""Number of images, spread evenly over the data, on which latency, operations and memory are measured."""


@dataclass(frozen=True)
class ComparedModel:
    """A row of the table.

    Attributes:
        model: as it was named.
        system: its architecture.
        classes: how many it tells apart; means over different classes cannot be compared.
        metrics: those of its definition that a table shows, fractions of 1, or None if nothing was evaluated.
        parameters: learned numbers.
        gflops: 1e9 operations of the network for an image, on average; a multiplication with its addition counts two.
        latency_ms: median of the milliseconds from pixels in memory to a class for each, at the image's size.
        peak_memory_mib: mebibytes that loading the model and answering take; None where the system does not tell.
        input_size: how images are resized, see `ResizeRule.input_size`: the long side in pixels, or `short:800:1333`.
    """

    model: str
    system: str
    classes: int
    metrics: dict[str, float | None]
    parameters: int
    gflops: float
    latency_ms: float
    peak_memory_mib: float | None
    input_size: int | str

    def to_json(self) -> dict[str, Any]:
        """The row as one object, the metrics beside the other values."""
        values = asdict(self)
        metrics = values.pop("metrics")
        return {"model": self.model, "system": self.system, "classes": self.classes, **metrics, **values}


@dataclass(frozen=True)
class Comparison:
    """The result of comparing models.

    Attributes:
        data: the specification of the data.
        images: how many were evaluated.
        definition: of the metrics.
        device: where it was computed.
        threads: with which torch computed on the CPU.
        repeats: how often each image was timed with each model.
        timed_images: over how many images speed, work and memory were measured.
        models: in the order in which they were named.
        seconds: how long it took.
    """

    data: str
    images: int
    definition: str
    device: str
    threads: int
    repeats: int
    timed_images: int
    models: tuple[ComparedModel, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The object that `compare --json` prints."""
        return {**asdict(self), "models": [model.to_json() for model in self.models]}


def compare(
    subjects: Sequence[Subject], metrics: Sequence[TaskMetric], *, repeats: int, started: float
) -> Iterator[str | Comparison]:
    """Measure operations, latency and memory of evaluated models.

    Args:
        subjects: models on the same device and the same data.
        metrics: what was counted of each.
        repeats: how often each image is timed with each model.
        started: the clock, `time.perf_counter`, when the comparison began.

    Yields:
        what is done next, for a bar; at the end the comparison.

    Raises:
        DataError: none of the images to time can be read.
        CheckpointError: memory could not be measured.
    """
    predictors = [_predictor(subject) for subject in subjects]
    timed = timed_images(subjects[0].dataset)
    pictures = [picture for _, picture in timed]
    yield "latency"
    times = latencies(
        [predictor.annotate for predictor in predictors], pictures, repeats=repeats, wait=_waiter(predictors[0])
    )
    rows: list[ComparedModel] = []
    for subject, predictor, metric, seconds in zip(subjects, predictors, metrics, times, strict=True):
        yield f"memory of {subject.name}"
        bytes_taken = peak_memory(
            subject.name,
            [path for path, _ in timed],
            device=str(predictor.device),
            threads=torch.get_num_threads(),
        )
        values = metric.compute()
        rows.append(
            ComparedModel(
                model=subject.name,
                system=predictor.card.system,
                classes=len(predictor.labels),
                metrics={name: values[name] for name in shown(metric.definition)},
                parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
                gflops=flops(predictor, pictures) / 1e9,
                latency_ms=1000 * statistics.median(seconds),
                peak_memory_mib=None if bytes_taken is None else bytes_taken / 2**20,
                input_size=predictor.resize_rule().input_size,
            )
        )
    yield Comparison(
        data=subjects[0].dataset.name,
        images=len(metrics[0].images),
        definition=metrics[0].definition,
        device=_device_name(predictors[0].device),
        threads=torch.get_num_threads(),
        repeats=repeats,
        timed_images=len(timed),
        models=tuple(rows),
        seconds=round(time.perf_counter() - started, 3),
    )


def timed_images(dataset: Dataset) -> list[tuple[Path, UInt8[Tensor, "3 H W"]]]:
    """Images spread evenly over a data set, those that can be read. Raises DataError if none can."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(TIMED_IMAGES, len(dataset))).round().astype(int))
    found: list[tuple[Path, Tensor]] = []
    for path in (dataset.image_path(int(index)) for index in chosen):
        try:
            found.append((path, read_image(path)))
        except DataError:
            continue
    if not found:
        raise DataError(
            f"{dataset.name}: none of the {len(chosen)} images to time can be read; see pixelwise data check"
        )
    return found


def latencies(
    answers: Sequence[Callable[[UInt8[Tensor, "3 H W"]], object]],
    pictures: Sequence[UInt8[Tensor, "3 H W"]],
    *,
    repeats: int,
    wait: Callable[[], None],
) -> list[list[float]]:
    """Seconds of each prediction to each picture, `repeats` times; one list for each of `answers`.

    All answer a picture one after the other, beginning with another one each time, so that a machine that becomes
    slower does so for all. Each answers each picture once before, untimed.

    Args:
        answers: are called with a picture.
        pictures: in memory.
        repeats: how often.
        wait: returns when the device has done its work.
    """
    for answer in answers:
        for picture in pictures:
            answer(picture)
    seconds: list[list[float]] = [[] for _ in answers]
    turn = 0
    for _ in range(repeats):
        for picture in pictures:
            for place in range(len(answers)):
                index = (turn + place) % len(answers)
                wait()
                begin = time.perf_counter()
                answers[index](picture)
                wait()
                seconds[index].append(time.perf_counter() - begin)
            turn += 1
    return seconds


@torch.no_grad()
def flops(predictor: Predictor, pictures: Sequence[UInt8[Tensor, "3 H W"]]) -> float:
    """Operations of the network for a picture at the model's input size, on average.

    Convolutions and matrix products are counted, as torch's counter does, a multiplication with its addition as two;
    normalisation, activations and resizing are not.
    """
    counted: dict[tuple[int, int], int] = {}
    rule = predictor.resize_rule()
    sizes = [rule.size_of((picture.shape[1], picture.shape[2])) for picture in pictures]
    for size, picture in zip(sizes, pictures, strict=True):
        if size not in counted:
            with FlopCounterMode(display=False) as counter:
                predictor.model(predictor.prepare(picture))
            counted[size] = counter.get_total_flops()
    return statistics.fmean(counted[size] for size in sizes)


def _predictor(subject: Subject) -> Predictor:
    if subject.predictor is None:
        raise DataError(f"{subject.name}: expected a model")
    return subject.predictor


def _waiter(predictor: Predictor) -> Callable[[], None]:
    if predictor.device.type == "cuda":
        return lambda: torch.cuda.synchronize(predictor.device)
    return lambda: None


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
