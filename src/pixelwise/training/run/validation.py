"""Validation within a run: evaluates the current weights and stores the best and the last."""

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
from pixelwise.training.processes import copy_from_first, gathered, on_all_ranks, process_count, process_rank
from pixelwise.training.run.checkpoint import RunProgress
from pixelwise.training.run.data import TrainingData
from pixelwise.training.run.log import Log
from pixelwise.training.run.plan import Plan


class Evaluated(NamedTuple):
    """A finished evaluation.

    Attributes:
        step: of the run.
        metrics: see `compute` of the task's metric.
        chosen_by: the metric that selects the best weights.
        best: whether these weights are the best so far of their stage.
    """

    step: int
    metrics: dict[str, Any]
    best: bool
    chosen_by: str

    @property
    def score(self) -> float:
        """The value of that metric; 0 where nothing could be evaluated."""
        return self.metrics[self.chosen_by] or 0.0


class Evaluating(NamedTuple):
    """One evaluated image of an evaluation."""

    done: int
    of: int


class Validation:
    """Evaluates the weights of a stage, stores the best and the last, and decides when to end early.

    Each process evaluates its share of the images; the first writes.

    Args:
        folder: of the run.
        plan: of the run.
        data: with the validation set; without one the last weights are the best.
        fitting: of the stage.
        progress: of a saved state, or None at the start of the stage.
        offset: steps of the stages before, where `progress` is None.

    Attributes:
        best: the best score of the stage, or None.
        evaluated: the stage's step of the last evaluation; 0 for none.
        stale: evaluations since the best.
        offset: steps of the stages before.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        data: TrainingData,
        fitting: Fit,
        progress: RunProgress | None,
        offset: int,
    ) -> None:
        self.folder, self.plan, self.data, self.fitting = folder, plan, data, fitting
        self.best, self.evaluated, self.stale, self.offset = progress or RunProgress(offset=offset)

    @property
    def _task(self) -> str:
        return as_system(self.fitting.system).task

    @property
    def progress(self) -> RunProgress:
        """The state from which a validation continues."""
        return RunProgress(self.best, self.evaluated, self.stale, self.offset)

    @property
    def step(self) -> int:
        """Steps made in the run."""
        return self.offset + self.fitting.step

    @property
    def is_over(self) -> bool:
        """Whether the stage has made its steps, or ends early."""
        return self.fitting.step >= self.fitting.stage.steps or self.is_impatient

    @property
    def is_impatient(self) -> bool:
        """Whether `patience` evaluations brought no better score."""
        return 0 < self.plan.recipe.patience <= self.stale

    @property
    def is_due(self) -> bool:
        """Whether an evaluation is due at this step."""
        step, every = self.fitting.step, self.plan.recipe.evaluate_every
        due = step >= self.fitting.stage.steps or bool(every and step and step % every == 0)
        return due and self.evaluated != step

    def evaluate(self, log: Log | None, *, stop: Interruption, device: torch.device, workers: int) -> Iterator[Event]:
        """Validate, store weights and add to the log; after an interruption nothing is stored.

        Args:
            log: of the process that writes.
            stop: checked after each image, and on all ranks after the last.
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
        # batch-norm statistics differ between processes, which have other images
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
        on_all_ranks(lambda: _raise(fault))
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
        """Store the current weights without evaluation."""
        self._write(("last",), {})

    def _write(self, names: tuple[str, ...], scores: Mapping[str, Any]) -> None:
        def write() -> None:
            for name in names if process_rank() == 0 else ():
                write_model(self.folder / name, self.fitting.shipped_state(), self._card(scores))

        on_all_ranks(write)

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
