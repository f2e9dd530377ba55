"""What every data format promises, whichever it is: found by walking `pixelwise.data.formats`."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pixelwise.data.dataset import Dataset, Mapped, Merged
from pixelwise.data.spec import DataSpec, Format, format_names, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.types import Sample
from tests.data.sets import formats_with, set_module, write_tiny_set


@pytest.fixture(params=format_names())
def format(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def module(format: str) -> ModuleType:
    return importlib.import_module(f"pixelwise.data.formats.{format.replace('-', '_')}")


@pytest.fixture
def spec(format: str, tmp_path: Path) -> str:
    write_tiny_set(format, tmp_path / "set")
    return f"{format}:{tmp_path / 'set'}"


@pytest.fixture
def dataset(spec: str) -> Dataset:
    return open_dataset(spec, default_split="train")


def require_equal(one: Sample, other: Sample) -> None:
    assert (one.id, one.original_size, one.clip, one.frame) == (other.id, other.original_size, other.clip, other.frame)
    assert torch.equal(one.image, other.image)
    assert one.truth.semantic is not None
    assert other.truth.semantic is not None
    assert torch.equal(one.truth.semantic, other.truth.semantic)
    assert (one.truth.instances is None) == (other.truth.instances is None)
    if one.truth.instances is not None and other.truth.instances is not None:
        for name in ("boxes", "labels", "crowd"):
            assert torch.equal(getattr(one.truth.instances, name), getattr(other.truth.instances, name))
        for name in ("crops", "offsets", "boxes"):
            assert torch.equal(getattr(one.truth.instances.masks, name), getattr(other.truth.instances.masks, name))
    assert (one.truth.panoptic is None) == (other.truth.panoptic is None)
    if one.truth.panoptic is not None and other.truth.panoptic is not None:
        for name in ("ids", "segment_ids", "labels", "crowd"):
            assert torch.equal(getattr(one.truth.panoptic, name), getattr(other.truth.panoptic, name))


def test_there_are_formats() -> None:
    assert len(format_names()) >= 19
    assert formats_with("clips")


def test_the_file_says_what_lies_where_and_its_options(module: ModuleType) -> None:
    assert len((module.__doc__ or "").strip()) > 40
    assert isinstance(module.FORMAT, Format)
    assert all(name and meaning for name, meaning in module.FORMAT.options.items())


def test_train_and_val_are_opened_apart(spec: str) -> None:
    assert {"train", "val"} <= set(splits_of(spec))
    train, val = (open_dataset(f"{spec}@{split}", default_split="test") for split in ("train", "val"))
    assert len(train) > 0
    assert len(val) > 0
    assert not {train.image_path(index) for index in range(len(train))} & {
        val.image_path(index) for index in range(len(val))
    }
    assert (train.labels.names, train.labels.dataset_ids) == (val.labels.names, val.labels.dataset_ids)


def test_the_name_opens_the_same_set_again(dataset: Dataset, format: str) -> None:
    assert dataset.format == format
    again = open_dataset(DataSpec.parse(dataset.name), default_split="val")
    assert (again.name, again.ids) == (dataset.name, dataset.ids)
    assert dataset.name.endswith("@train")


def test_samples_are_what_the_contract_says(dataset: Dataset) -> None:
    assert isinstance(dataset.labels, LabelSet)
    assert dataset.note is None or "\n" not in dataset.note
    assert len(dataset.ids) == len(set(dataset.ids)) == len(dataset) > 0
    for index, id in enumerate(dataset.ids):
        sample = dataset[index]
        size = (sample.image.shape[1], sample.image.shape[2])
        assert (sample.id, sample.original_size, dataset.size_of(index)) == (id, size, size)
        assert sample.image.dtype == torch.uint8
        assert sample.image.shape[0] == 3
        semantic = sample.truth.semantic
        assert semantic is not None
        assert (semantic.shape, semantic.dtype) == (size, torch.uint8)
        assert set(semantic.unique().tolist()) <= {*range(len(dataset.labels)), dataset.labels.ignore_id}
        if sample.truth.instances is not None and sample.truth.instances.masks is not None:
            assert sample.truth.instances.masks.size == size
        assert dataset.image_path(index).is_file()
        assert dataset.truth_path(index).is_file()


def test_objects_are_what_the_contract_says(dataset: Dataset) -> None:
    for index in range(len(dataset)):
        sample = dataset[index]
        found = sample.truth.instances
        if found is None:
            assert "objects" not in set_module(dataset.format).HAS
            continue
        assert found.masks is not None
        assert found.crowd is not None
        assert found.masks.size == sample.original_size
        assert len(found.masks) == len(found.labels) == len(found.boxes) == len(found.crowd)
        assert (found.boxes.dtype, found.labels.dtype, found.crowd.dtype) == (torch.float32, torch.int64, torch.bool)
        assert found.scores is None
        assert (found.track_ids is None) == (sample.clip is None)
        things = [id for id, is_thing in enumerate(dataset.labels.is_thing) if is_thing]
        assert set(found.labels.tolist()) <= set(things)
        assert (found.masks.areas() > 0).all()
        assert ((found.boxes - found.masks.boxes).abs() <= 1).all()
        for number, mask in enumerate(found.masks.dense().numpy()):
            rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
            tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert found.masks.boxes[number].tolist() == tight


def test_segments_are_what_the_contract_says(dataset: Dataset) -> None:
    for index in range(len(dataset)):
        truth = dataset[index].truth
        if truth.panoptic is None:
            assert "segments" not in set_module(dataset.format).HAS
            continue
        found = truth.panoptic
        assert truth.semantic is not None
        assert truth.instances is not None
        assert found.ids.shape == dataset.size_of(index)
        dtypes = (found.ids.dtype, found.segment_ids.dtype, found.labels.dtype, found.crowd.dtype)
        assert dtypes == (torch.int32, torch.int32, torch.int64, torch.bool)
        assert found.scores is None
        assert len(set(found.segment_ids.tolist())) == len(found) == len(found.labels) == len(found.crowd)
        assert set(found.ids.unique().tolist()) - {0} <= set(found.segment_ids.tolist())
        assert 0 not in found.segment_ids
        assert torch.equal(found.to_semantic(dataset.labels.ignore_id), truth.semantic)
        is_thing = torch.tensor(dataset.labels.is_thing)[found.labels] & (found.areas() > 0)
        assert sorted(found.areas()[is_thing].tolist()) == sorted(truth.instances.masks.areas().tolist())  # pyright: ignore[reportOptionalMemberAccess]
        assert not (found.crowd & ~torch.tensor(dataset.labels.is_thing)[found.labels]).any()


def test_frames_of_clips_are_what_the_contract_says(dataset: Dataset) -> None:
    clips = dataset.clips
    assert (clips is None) == ("clips" not in set_module(dataset.format).HAS)
    if clips is None:
        assert dataset[0].clip is dataset[0].frame is None
        return
    assert len(clips) == len(dataset)
    assert len(set(clips)) > 1
    assert list(clips) == sorted(clips)
    class_of: dict[tuple[str, int], int] = {}
    seen_before = 0
    for index, id in enumerate(dataset.ids):
        sample = dataset[index]
        assert (sample.clip, sample.frame) == (clips[index], index - clips.index(clips[index]))
        assert id.startswith(f"{sample.clip}/")
        found = sample.truth.instances
        assert found is not None
        assert found.track_ids is not None
        assert found.track_ids.dtype == torch.int64
        for track, label in zip(found.track_ids.tolist(), found.labels.tolist(), strict=True):
            seen_before += (clips[index], track) in class_of
            assert class_of.setdefault((clips[index], track), label) == label
        assert len(set(found.track_ids.tolist())) == len(found)
    assert seen_before
    merged, mapped = Merged((dataset, dataset)), Mapped(dataset, LabelMap.by_names(dataset.labels, dataset.labels))
    assert mapped.clips == clips
    assert merged.clips == (*(f"1/{clip}" for clip in clips), *(f"2/{clip}" for clip in clips))
    assert merged[len(dataset)].clip == f"2/{clips[0]}"


def test_objects_and_classes_agree(dataset: Dataset) -> None:
    """Where no object overlaps another, its pixels are of its class, or void of a crowd."""
    for index in range(len(dataset)):
        truth = dataset[index].truth
        if truth.instances is None or truth.instances.masks is None or truth.instances.crowd is None:
            continue
        assert truth.semantic is not None
        dense = truth.instances.masks.dense()
        alone = dense & (dense.sum(dim=0) == 1)
        for mask, label, crowd in zip(alone, truth.instances.labels, truth.instances.crowd, strict=True):
            wanted = {int(label), dataset.labels.ignore_id} if crowd else {int(label)}
            assert set(truth.semantic[mask].tolist()) <= wanted


def test_reading_twice_gives_the_same(dataset: Dataset) -> None:
    require_equal(dataset[0], dataset[0])
    assert dataset[0].image.data_ptr() != dataset[0].image.data_ptr()


def test_an_index_behind_the_end_is_no_sample(dataset: Dataset) -> None:
    require_equal(dataset[-1], dataset[len(dataset) - 1])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_another_process_may_read_it(dataset: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.name, copy.ids, copy.labels) == (dataset.name, dataset.ids, dataset.labels)
    require_equal(copy[0], dataset[0])


def test_it_merges_with_itself_under_new_ids(dataset: Dataset) -> None:
    both = Merged((dataset, dataset))
    assert len(both) == 2 * len(dataset)
    assert len(set(both.ids)) == len(both)
    assert both[len(dataset)].id == both.ids[len(dataset)]
    assert torch.equal(both[len(dataset)].image, dataset[0].image)


def test_its_classes_can_be_mapped(dataset: Dataset) -> None:
    target = LabelSet.from_names("one", [dataset.labels.names[1]])
    mapped = Mapped(dataset, LabelMap.by_names(dataset.labels, target))
    was, now = dataset[0].truth.semantic, mapped[0].truth.semantic
    assert was is not None
    assert now is not None
    assert torch.equal(now == 0, was == 1)
    assert torch.equal(now == target.ignore_id, was != 1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_check_of_a_sound_set_finds_nothing(spec: str, split: str) -> None:
    report = check_dataset(DataSpec.parse(f"{spec}@{split}"))
    assert not report.faults()


def test_an_unknown_split_option_or_folder_is_refused_in_one_line(spec: str, format: str) -> None:
    for wrong, text in (
        (f"{spec}@nosuchsplit", "nosuchsplit"),
        (f"{spec}@train?nosuchoption=1", "nosuchoption"),
        (f"{format}:/no/such/folder", "/no/such/folder"),
    ):
        with pytest.raises(DataError, match=text) as caught:
            open_dataset(wrong, default_split="train")
        assert "\n" not in str(caught.value)


def test_a_broken_image_is_refused_by_file_and_id(dataset: Dataset) -> None:
    path = dataset.image_path(0)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert path.name in str(caught.value)
    assert dataset.ids[0] in str(caught.value)
