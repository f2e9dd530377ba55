"""Evaluation within a run: the weights that would ship are evaluated, and the best and the last are kept on disk."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pixelwise.contracts import Stage, as_system
from pixelwise.errors import PixelwiseError
from pixelwise.evaluation.evaluate import evaluate, model_predictions
from pixelwise.evaluation.shards import Shard
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.choice import chosen_by, new_metric
from pixelwise.training.fit import Fit
from pixelwise.training.interruption import Interruption
from pixelwise.training.processes import copy_from_first, gathered, process_count, process_rank, together
from pixelwise.training.run.checkpoint import Progress
from pixelwise.training.run.data import TrainingData
from pixelwise.training.run.log import Log
from pixelwise.training.run.plan import Plan


class Evaluated(NamedTuple):
    """An evaluation that ended.

    Attributes:
        step: at which.
        metrics: see `compute` of the task's metric.
        chosen_by: the name of the metric by which weights are chosen.
        best: whether these weights are the best so far of their stage.
    """

    step: int
    metrics: dict[str, Any]
    best: bool
    chosen_by: str

    @property
    def score(self) -> float:
        """The number by which weights are chosen; 0 where nothing could be evaluated."""
        return self.metrics[self.chosen_by] or 0.0


class Evaluating(NamedTuple):
    """One image of an evaluation that was evaluated."""

    done: int
    of: int


class Validation:
    """Evaluates the shipped weights of a stage, keeps the best and the last on disk, and says when to end early.

    Each process evaluates its share of the images; the first writes.

    Args:
        folder: of the run.
        plan: of the run.
        data: whose val set is evaluated; without one the last weights are the best.
        fitting: the stage's.
        progress: of a state that was saved, or None at the start of the stage.
        offset: steps of the stages before, where `progress` does not say.

    Attributes:
        best: the best score of the stage, or None.
        evaluated: the stage's step at which was evaluated last; 0 for never.
        stale: evaluations since the best.
        offset: steps made in the stages before.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        data: TrainingData,
        fitting: Fit,
        progress: Progress | None,
        offset: int,
    ) -> None:
        self.folder, self.plan, self.data, self.fitting = folder, plan, data, fitting
        self.best, self.evaluated, self.stale, self.offset = progress or Progress(offset=offset)

    @property
    def _task(self) -> str:
        return as_system(self.fitting.system).task

    @property
    def progress(self) -> Progress:
        """From which a validation goes on."""
        return Progress(self.best, self.evaluated, self.stale, self.offset)

    @property
    def step(self) -> int:
        """Steps made in the run."""
        return self.offset + self.fitting.step

    @property
    def is_over(self) -> bool:
        """Whether the stage has made its steps, or waited too long for a better score."""
        return self.fitting.step >= self.fitting.stage.steps or self.is_impatient

    @property
    def is_impatient(self) -> bool:
        """Whether so many evaluations were no better than one before."""
        return 0 < self.plan.recipe.patience <= self.stale

    @property
    def is_due(self) -> bool:
        """Whether it is time for an evaluation that was not made yet."""
        step, every = self.fitting.step, self.plan.recipe.evaluate_every
        due = step >= self.fitting.stage.steps or bool(every and step and step % every == 0)
        return due and self.evaluated != step

    def evaluate(self, log: Log | None, *, stop: Interruption, device: torch.device, workers: int) -> Iterator[Event]:
        """Validation, write what is to be kept, and add to the log; nothing of it after an interruption.

        Args:
            log: of the process that writes.
            stop: is asked after each image, and together after the last.
            device: where to predict.
            workers: processes that read images.
        """
        if self.data.val is None:
            self._write(("best", "last"), {})
            self.evaluated = self.fitting.step
            return
        started = time.perf_counter()
        system = copy.deepcopy(self.fitting.system)
        system.load_state_dict(self.fitting.shipped_state())
        # every process has seen other images, so that its batch-norm statistics are others
        copy_from_first(system.state_dict().values())
        metric = new_metric(self._task, self.data.labels, clips=self.data.val.clips is not None)
        answers = model_predictions(Predictor(system.eval(), self._card({}), device=str(device)))
        count, processes = len(self.data.val), process_count()
        fault: PixelwiseError | None = None
        try:
            share = Shard(process_rank() + 1, processes).part_of(range(count), self.data.val.clips)
            for done, _ in enumerate(evaluate(answers, self.data.val, metric, workers=workers, indices=share), start=1):
                yield Evaluating(min(done * processes, count), count)
                if stop.signal is not None:
                    break
        except PixelwiseError as error:
            fault = error
        together(lambda: _raise(fault))
        if stop.asked():
            return
        whole, *others = gathered(metric)
        for other in others:
            whole.merge(other)
        number = chosen_by(whole.definition)
        yield from self._keep(whole.compute(), log, number=number, seconds=time.perf_counter() - started)

    def _keep(self, metrics: dict[str, Any], log: Log | None, *, number: str, seconds: float) -> Iterator[Event]:
        scores = {name: value for name, value in metrics.items() if name != "per_class"}
        value = metrics[number] or 0.0
        is_best = self.best is None or value > self.best
        if is_best:
            self.best = value
        self.stale = 0 if is_best else self.stale + 1
        self.evaluated = self.fitting.step
        self._write(("best", "last") if is_best else ("last",), scores)
        if log:
            log.evaluation(self.step, metrics, seconds=seconds)
        yield Evaluated(self.step, metrics, is_best, number)

    def write_last(self) -> None:
        """Write the weights as they are, ignored."""
        self._write(("last",), {})

    def _write(self, names: tuple[str, ...], scores: Mapping[str, Any]) -> None:
        def write() -> None:
            for name in names if process_rank() == 0 else ():
                write_model(self.folder / name, self.fitting.shipped_state(), self._card(scores))

        together(write)

    def _card(self, scores: Mapping[str, Any]) -> ModelCard:
        stage: Stage = self.fitting.stage
        val = {"data": self.data.val.name} if self.data.val and scores else {}
        named = {"stage": stage.name} if len(self.plan.recipe.stages) > 1 else {}
        return ModelCard(
            task=self._task,
            system=self.plan.system,
            labels=self.data.labels,
            arguments=self.plan.arguments_of(stage),
            resize=self.plan.recipe.resize,
            scores={**scores, **val},
            training={
                "data": list(self.plan.data),
                "label_map": self.plan.label_map,
                "init": self.plan.init,
                **named,
                "step": self.step,
                "crop_size": stage.crop_size,
                "command": self.plan.command,
                "revision": self.plan.revision,
            },
        )


Event = Evaluated | Evaluating


def _raise(fault: PixelwiseError | None) -> None:
    if fault:
        raise fault
