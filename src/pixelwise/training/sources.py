"""The data sets of a run: opened, brought to one label set, divided into what is learnt from and what is chosen on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pixelwise.data.dataset import Dataset, Mapped, Merged
from pixelwise.data.folders import EVERY_FIFTH
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet


@dataclass(frozen=True)
class TrainingData:
    """What a run reads.

    Attributes:
        train: what is learnt from.
        val: what the best weights are chosen on, or None where no set has a val split to spare.
        remarks: what was decided about the data that the user should know.
        label_maps: how other classes became those of the first set, each once.
    """

    train: Dataset
    val: Dataset | None
    remarks: tuple[str, ...]
    label_maps: tuple[LabelMap, ...]

    @property
    def labels(self) -> LabelSet:
        """The classes, those of the first set."""
        return self.train.labels

    @property
    def dealt_out(self) -> tuple[str, ...]:
        """The ids of `val` where a set has no splits and its images were dealt out by name; else none."""
        return self.val.ids if self.val and any(EVERY_FIFTH in remark for remark in self.remarks) else ()


def open_training_data(specs: Sequence[str], label_map: str | None) -> TrainingData:
    """Open the sets of a run.

    A set without `@SPLIT` gives its train split to learn from and its val split to choose on; with `@SPLIT` it gives
    that split to learn from, and nothing to choose on. Classes are those of the first set, or those that the map's file
    names as its target.

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
    remarks = dict.fromkeys(dataset.remark for dataset in (*train, *val) if dataset.remark)
    train = [with_labels(dataset, labels, label_map) for dataset in train]
    val = [with_labels(dataset, labels, label_map) for dataset in val]
    empty = next((dataset for dataset in (*train, *val) if not len(dataset)), None)
    if empty is not None:
        raise DataError(f"{empty.name}: no images in it; see pixelwise data check")
    maps = dict.fromkeys(dataset.label_map for dataset in (*train, *val) if isinstance(dataset, Mapped))
    return TrainingData(_joined(train), _joined(val) if val else None, tuple(remarks), tuple(maps))


def with_labels(dataset: Dataset, labels: LabelSet, label_map: str | None) -> Dataset:
    """The set in the given classes.

    Args:
        dataset: as opened.
        labels: the wanted classes.
        label_map: None (names must agree), `names`, a TOML file, or the name of a map that ships.

    Raises:
        DataError: the classes differ and there is no map, or the map does not fit.
    """
    if dataset.labels.names == labels.names:
        return dataset
    if label_map is None:
        labels.require_same(dataset.labels, mine="the model", theirs=f"data {dataset.name}")
    return Mapped(dataset, read_label_map(str(label_map), dataset.labels, labels))


def read_label_map(text: str, source: LabelSet, target: LabelSet) -> LabelMap:
    """The map that `--map` names: `names`, a TOML file, or the name of one that ships beside the label sets."""
    if text == "names":
        return LabelMap.by_names(source, target)
    with _map_file(text) as path:
        return LabelMap.from_toml(path, source, target)


def _target(label_map: str | None, first: LabelSet) -> LabelSet:
    """What the map makes of all classes: those of the first set, unless its file names others."""
    if label_map is None or label_map == "names":
        return first
    with _map_file(label_map) as path:
        target = LabelMap.target_of(path)
    return first if target is None or target.names == first.names else target


def _map_file(text: str) -> AbstractContextManager[Path]:
    if Path(text).is_file():
        return nullcontext(Path(text))
    shipped = resources.files("pixelwise.labels.maps")
    names = sorted(entry.name.removesuffix(".toml") for entry in shipped.iterdir() if entry.name.endswith(".toml"))
    if text not in names:
        raise DataError(f"--map {text}: no such file; names, a TOML file, or one of {', '.join(names)} is wanted")
    return resources.as_file(shipped.joinpath(f"{text}.toml"))


def describe_label_map(label_map: LabelMap) -> Iterator[str]:
    """The table of a map in lines, the classes of the source grouped by what they become."""
    yield f"label map {label_map.source.name} → {label_map.target.name}:"
    sources: dict[str, list[str]] = {}
    for source, target in label_map.rows():
        sources.setdefault(target, []).append(source)
    for target, names in sources.items():
        yield f"  {', '.join(names)} → {target}"


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    return datasets[0] if len(datasets) == 1 else Merged(tuple(datasets))
