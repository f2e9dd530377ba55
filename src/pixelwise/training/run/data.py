"""The data sets of a run: opened, mapped to one label set, and split into training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixelwise.data.dataset import Dataset, Mapped, Merged
from pixelwise.data.kinds.folders import EVERY_FIFTH
from pixelwise.data.label_maps import _target, with_labels
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet


@dataclass(frozen=True)
class TrainingData:
    """The data of a run.

    Attributes:
        train: training images.
        val: validation images, which select the best weights, or None without any.
        notes: for the user, about the data.
        label_maps: from other label sets to that of the first set, each once.
    """

    train: Dataset
    val: Dataset | None
    notes: tuple[str, ...]
    label_maps: tuple[LabelMap, ...]

    @property
    def labels(self) -> LabelSet:
        """The classes, those of the first set."""
        return self.train.labels

    @property
    def split_off(self) -> tuple[str, ...]:
        """The ids of `val` of sets without splits, which are split by name."""
        return self.val.ids if self.val and any(EVERY_FIFTH in note for note in self.notes) else ()


def open_training_data(specs: Sequence[str], label_map: str | None) -> TrainingData:
    """Open the sets of a run.

    A set without `@SPLIT` is trained on its train split and validated on its val split; with `@SPLIT` that split is
    trained on, and nothing validated on. Classes are those of the first set, or of the map's target.

    Raises:
        DataError: a set cannot be opened, or label sets differ and no map is given.
    """
    train: list[Dataset] = []
    val: list[Dataset] = []
    for text in specs:
        spec = DataSpec.parse(text)
        train.append(open_dataset(spec, default_split="train"))
        if spec.split is None and "val" in splits_of(spec):
            val.append(open_dataset(spec, default_split="val"))
    labels = _target(label_map, train[0].labels)
    notes = dict.fromkeys(dataset.note for dataset in (*train, *val) if dataset.note)
    train = [with_labels(dataset, labels, label_map) for dataset in train]
    val = [with_labels(dataset, labels, label_map) for dataset in val]
    empty = next((dataset for dataset in (*train, *val) if not len(dataset)), None)
    if empty is not None:
        raise DataError(f"{empty.name}: no images in it; see pixelwise data check")
    maps = dict.fromkeys(dataset.label_map for dataset in (*train, *val) if isinstance(dataset, Mapped))
    return TrainingData(_joined(train), _joined(val) if val else None, tuple(notes), tuple(maps))


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    return datasets[0] if len(datasets) == 1 else Merged(tuple(datasets))
