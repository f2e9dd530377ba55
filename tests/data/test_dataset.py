"""Sets of pairs, several sets as one, and sets under another label set."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pixelwise.data.dataset import Dataset, FileDataset, Mapped, Merged, open_listing
from pixelwise.data.formats.masks import writer
from pixelwise.data.kinds.class_masks import mask_listing
from pixelwise.data.listing import Item
from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.types import Annotation, Instances, Sample
from tests.data import drawing
from tests.data.formats import coco_panoptic_set

LABELS = LabelSet.from_names("rooms", ["floor", "wall", "lamp"])


def pairs(root: Path, names: tuple[str, ...], *, name: str = "masks:rooms@train") -> FileDataset:
    for seed, stem in enumerate(names):
        drawing.write_image(root / "images" / f"{stem}.png", seed=seed)
        drawing.write_mask(root / "masks" / f"{stem}.png")
    items = [Item(stem, root / "images" / f"{stem}.png", root / "masks" / f"{stem}.png") for stem in names]
    listing = mask_listing(items, LABELS, source=root, writer=writer)
    dataset = open_listing(listing, name=name, format="masks")
    assert isinstance(dataset, FileDataset)
    return dataset


class TestFileDataset:
    def test_sample(self, tmp_path: Path) -> None:
        dataset: Dataset = pairs(tmp_path, ("a", "b"))
        drawing.write_mask(tmp_path / "masks" / "b.png", [[0, 1, 2, 255, 0, 0]] * 4)
        sample = dataset[1]
        assert len(dataset) == 2
        assert sample.id == "b"
        assert sample.original_size == dataset.size_of(1) == (4, 6)
        with Image.open(dataset.image_path(1)) as stored:
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), np.asarray(stored))
        assert sample.truth.semantic is not None
        assert sample.truth.semantic.dtype == torch.uint8
        assert sample.truth.semantic.tolist() == [[0, 1, 2, 255, 0, 0]] * 4

    def test_ids_on_disk_become_class_ids(self, tmp_path: Path) -> None:
        labels = replace(LABELS, dataset_ids=(7, 20, 5), void_ids=(0, 9))
        dataset = pairs(tmp_path, ("a",))
        dataset = replace(dataset, labels=labels)
        drawing.write_mask(tmp_path / "masks" / "a.png", [[7, 20, 5, 0, 9, 7]] * 4)
        semantic = dataset[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[0, 1, 2, 255, 255, 0]] * 4

    def test_sizes_that_differ_are_refused(self, tmp_path: Path) -> None:
        dataset = pairs(tmp_path, ("a",))
        drawing.write_mask(tmp_path / "masks" / "a.png", np.zeros((6, 4)))
        with pytest.raises(DataError, match=r"a\.png: the mask is 6×4, its image .*a\.png 4×6 \(image 'a'\)"):
            dataset[0]

    def test_a_turned_image_with_an_upright_mask(self, tmp_path: Path) -> None:
        dataset = pairs(tmp_path, ("a",))
        image = drawing.write_turned(tmp_path / "images" / "a.jpg")
        item = dataset.items[0]._replace(image=image)
        dataset = replace(dataset, items=(item,))
        drawing.write_mask(tmp_path / "masks" / "a.png", np.zeros((6, 4)))
        assert dataset[0].original_size == dataset.size_of(0) == (6, 4)

    @pytest.mark.parametrize("folder", ["images", "masks"])
    def test_broken_files_are_named_with_the_id(self, tmp_path: Path, folder: str) -> None:
        dataset = pairs(tmp_path, ("a",))
        (tmp_path / folder / "a.png").write_bytes(b"")
        with pytest.raises(DataError, match=rf"{folder}/a\.png: the file is empty \(image 'a'\)"):
            dataset[0]

    def test_unknown_ids_are_named(self, tmp_path: Path) -> None:
        dataset = pairs(tmp_path, ("a",))
        drawing.write_mask(tmp_path / "masks" / "a.png", [[0, 1, 37, 37, 0, 0]] * 4)
        with pytest.raises(DataError, match=r"masks/a\.png: value 37 \(8 pixels\) .*'rooms' .*\(image 'a'\)"):
            dataset[0]

    def test_ids_are_unique(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="'a' occurs more than once"):
            pairs(tmp_path, ("a", "b", "a"))

    def test_worker_processes_read_the_same(self, tmp_path: Path) -> None:
        dataset = pairs(tmp_path, ("a", "b", "c"))
        loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")  # pyright: ignore[reportArgumentType]
        for index, sample in enumerate(loader):
            assert sample.id == dataset.ids[index]
            assert torch.equal(sample.image, dataset[index].image)


class TestMerged:
    def test_one_after_the_other(self, tmp_path: Path) -> None:
        first, second = pairs(tmp_path / "1", ("a", "b"), name="x"), pairs(tmp_path / "2", ("c",), name="y")
        merged: Dataset = Merged((first, second))
        assert merged.ids == ("a", "b", "c")
        assert len(merged) == 3
        assert [merged[index].id for index in range(3)] == ["a", "b", "c"]
        assert merged.image_path(2) == second.image_path(0)
        assert merged.truth_path(1) == first.truth_path(1)
        assert merged.name == "x + y"
        assert merged.format == "masks"
        with pytest.raises(IndexError):
            merged[3]

    def test_equal_ids_get_the_number_of_their_set(self, tmp_path: Path) -> None:
        merged = Merged((pairs(tmp_path / "1", ("a", "b")), pairs(tmp_path / "2", ("b",))))
        assert merged.ids == ("1/a", "1/b", "2/b")
        assert merged[2].id == "2/b"

    def test_label_sets_must_agree(self, tmp_path: Path) -> None:
        other = pairs(tmp_path / "2", ("c",), name="y")
        labels = LabelSet.from_names("z", ["floor", "wall"])
        other = replace(other, labels=labels)
        with pytest.raises(DataError, match=r"label sets differ: data x has 'rooms'.*data y has 'z'"):
            Merged((pairs(tmp_path / "1", ("a",), name="x"), other))

    def test_notes_are_kept(self, tmp_path: Path) -> None:
        first, second = (replace(pairs(tmp_path / name, (name,)), note=f"about {name}") for name in "ab")
        assert Merged((first, second)).note == "about a; about b"
        assert Merged((replace(first, note=None),)).note is None

    def test_pickle(self, tmp_path: Path) -> None:
        merged = Merged((pairs(tmp_path / "1", ("a", "b")), pairs(tmp_path / "2", ("b",))))
        assert merged.ids == pickle.loads(pickle.dumps(merged)).ids


class TestMapped:
    TARGET = LabelSet.from_names("solid", ["wall", "floor"])
    MAP = LabelMap.by_names(LABELS, TARGET)

    def test_classes_of_the_target(self, tmp_path: Path) -> None:
        dataset = pairs(tmp_path, ("a",))
        drawing.write_mask(tmp_path / "masks" / "a.png", [[0, 1, 2, 255, 0, 0]] * 4)
        mapped: Dataset = Mapped(dataset, self.MAP)
        assert mapped.labels is self.TARGET
        assert mapped.ids == ("a",)
        semantic = mapped[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[1, 0, 255, 255, 1, 1]] * 4

    def test_objects_of_ignored_classes_are_skipped(self, tmp_path: Path) -> None:
        instances = Instances(boxes=torch.arange(12.0).view(3, 4), labels=torch.tensor([0, 2, 1]))
        dataset = WithInstances(pairs(tmp_path, ("a",)), instances)
        found = Mapped(dataset, self.MAP)[0].truth.instances
        assert found is not None
        assert found.labels.tolist() == [1, 0]
        assert found.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]

    def test_objects_that_become_background_are_skipped(self, tmp_path: Path) -> None:
        instances = Instances(boxes=torch.arange(16.0).view(4, 4), labels=torch.tensor([0, 2, 1, 0]))
        dataset = WithInstances(pairs(tmp_path, ("a",)), instances)
        names = ["background", "floor", "road"]
        for things, wanted in (((False, True, False), [1, 1]), ((False, False, False), [1, 2, 1])):
            target = replace(LabelSet.from_names("ground", names), is_thing=things)
            label_map = LabelMap.by_names(LABELS, target, names={"lamp": "road"}, default="background")
            found = Mapped(dataset, label_map)[0].truth.instances
            assert found is not None
            assert found.labels.tolist() == wanted

    def test_segments_of_ignored_classes_become_void(self, tmp_path: Path) -> None:
        dataset = open_dataset(f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path)}", default_split="train")
        target = LabelSet("two", ("person", "road"), (True, False), ((1, 1, 1), (2, 2, 2)), (1, 2))
        truth = Mapped(dataset, LabelMap.by_names(dataset.labels, target))[0].truth
        assert truth.panoptic is not None
        assert truth.panoptic.ids.tolist() == [[1, 1, 0, 0, 70000, 0]] * 2 + [[1, 1, 1, 9, 9, 0]] * 2
        assert sorted(zip(truth.panoptic.segment_ids.tolist(), truth.panoptic.labels.tolist(), strict=True)) == [
            (1, 1),
            (9, 0),
            (70000, 0),
        ]
        assert truth.semantic is not None
        assert truth.semantic.tolist() == [[1, 1, 255, 255, 0, 255]] * 2 + [[1, 1, 1, 0, 0, 255]] * 2
        assert truth.instances is not None
        assert truth.instances.labels.tolist() == [0, 0]
        assert truth.instances.track_ids is None

    def test_a_map_from_other_classes_is_refused(self, tmp_path: Path) -> None:
        other = LabelMap.by_names(LabelSet.from_names("other", ["wall"]), self.TARGET)
        with pytest.raises(DataError, match="label sets differ"):
            Mapped(pairs(tmp_path, ("a",)), other)


class WithInstances(Merged):
    """A set whose every ground truth is the given objects."""

    def __init__(self, dataset: Dataset, instances: Instances) -> None:
        super().__init__((dataset,))
        object.__setattr__(self, "instances", instances)

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), truth=Annotation(instances=self.instances))  # pyright: ignore
