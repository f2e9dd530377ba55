"""What `--map` names: the map from the label set of a data set to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from pathlib import Path

from pixelwise.data.dataset import Dataset, Mapped
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet


def with_labels(dataset: Dataset, labels: LabelSet, label_map: str | None) -> Dataset:
    """The set in the given classes.

    Args:
        dataset: as opened.
        labels: the target classes.
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
        raise DataError(f"--map {text}: no such file; expected names, a TOML file, or one of {', '.join(names)}")
    return resources.as_file(shipped.joinpath(f"{text}.toml"))


def describe_label_map(label_map: LabelMap) -> Iterator[str]:
    """The table of a map in lines, the classes of the source grouped by what they become."""
    yield f"label map {label_map.source.name} → {label_map.target.name}:"
    sources: dict[str, list[str]] = {}
    for source, target in label_map.rows():
        sources.setdefault(target, []).append(source)
    for target, names in sources.items():
        yield f"  {', '.join(names)} → {target}"
