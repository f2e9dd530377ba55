"""COCO instances: what is painted, what counts as the same classes, and what is refused or skipped."""

from __future__ import annotations

import json
import pickle
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.data.dataset import FileDataset
from pixelwise.data.formats.coco.json import annotation_problems
from pixelwise.data.kinds.coco_json import image_problems
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.errors import DataError
from pixelwise.labels import published
from pixelwise.ops import rle
from pixelwise.types import Instances
from tests.data import drawing
from tests.data.formats import coco_set

CRATE, TRUCK = 3, 9


def opened(root: Path, split: str = "train", query: str = "") -> FileDataset:
    dataset = open_dataset(f"coco:{root}@{split}{query}", default_split="val")
    assert isinstance(dataset, FileDataset)
    return dataset


def faults(root: Path) -> list[tuple[str, str]]:
    """Kind and text of each."""
    return [(fault.kind, fault.text) for fault in check_dataset(DataSpec.parse(f"coco:{root}")).faults()]


def notes(root: Path) -> str:
    """What check says that is no fault."""
    return "; ".join(note for split in check_dataset(DataSpec.parse(f"coco:{root}")).splits for note in split.notes)


def semantic(dataset: FileDataset, index: int = 0) -> list[list[int]]:
    ids = dataset[index].truth.semantic
    assert ids is not None
    return ids.tolist()


def instances(dataset: FileDataset, index: int = 0) -> Instances:
    found = dataset[index].truth.instances
    assert found is not None
    return found


class TestPainting:
    def test_small_objects_stay_on_top_whatever_their_order(self, tmp_path: Path) -> None:
        large = coco_set.annotation(1, 7, TRUCK, (0, 0, 8, 4))
        small = coco_set.annotation(2, 7, CRATE, (2, 1, 4, 3))
        rows = [
            [2, 2, 2, 2, 2, 2, 2, 2],
            [2, 2, 1, 1, 2, 2, 2, 2],
            [2, 2, 1, 1, 2, 2, 2, 2],
            [2, 2, 2, 2, 2, 2, 2, 2],
            *[[0] * 8] * 4,
        ]
        for place, in_file in enumerate(([large, small], [small, large])):
            assert semantic(opened(coco_set.coco(tmp_path / str(place), in_file))) == rows

    def test_the_painted_area_counts_not_the_stated_one(self, tmp_path: Path) -> None:
        annotations = [
            coco_set.annotation(1, 7, TRUCK, (0, 0, 8, 8), area=1),
            coco_set.annotation(2, 7, CRATE, (0, 0, 1, 1), area=999),
        ]
        assert semantic(opened(coco_set.coco(tmp_path, annotations)))[0] == [1, 2, 2, 2, 2, 2, 2, 2]

    def test_crowds_are_void_under_objects(self, tmp_path: Path) -> None:
        crowd = np.zeros((8, 8), dtype=np.uint8)
        crowd[:2, :6] = 1
        annotations = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 1, 8)),
            coco_set.annotation(2, 7, TRUCK, (0, 0, 6, 2), iscrowd=1, segmentation=run_lengths(crowd)),
        ]
        dataset = opened(coco_set.coco(tmp_path, annotations))
        assert semantic(dataset) == [*[[1, 255, 255, 255, 255, 255, 0, 0]] * 2, *[[1, 0, 0, 0, 0, 0, 0, 0]] * 6]
        assert instances(dataset).crowd is not None
        assert instances(dataset).crowd.tolist() == [False, True]  # pyright: ignore[reportOptionalMemberAccess]

    def test_all_three_forms_of_a_mask(self, tmp_path: Path) -> None:
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[1:3, 2:5] = 1
        forms = ([drawing.rectangle(2, 1, 5, 3)], run_lengths(mask), rle.encode(mask))
        annotations = [
            coco_set.annotation(number, 7, CRATE, (2, 1, 5, 3), segmentation=form) for number, form in enumerate(forms)
        ]
        found = instances(opened(coco_set.coco(tmp_path, annotations))).masks
        assert found is not None
        for number in range(3):
            assert np.array_equal(found.dense_one(number).numpy(), mask == 1)

    def test_the_polygons_of_one_object_are_joined(self, tmp_path: Path) -> None:
        parts = [drawing.rectangle(0, 0, 1, 1), [5, 5, 6, 6], drawing.rectangle(6, 0, 8, 1)]
        dataset = opened(coco_set.coco(tmp_path, [coco_set.annotation(1, 7, CRATE, (0, 0, 8, 1), segmentation=parts)]))
        assert semantic(dataset)[0] == [1, 0, 0, 0, 0, 0, 1, 1]

    def test_an_image_without_objects(self, tmp_path: Path) -> None:
        dataset = opened(coco_set.coco(tmp_path, []))
        assert semantic(dataset) == [[0] * 8] * 8
        assert len(instances(dataset)) == 0


class TestInstances:
    def test_boxes_labels_and_order_of_the_file(self, tmp_path: Path) -> None:
        images = [{"id": id, "file_name": f"{id}.png", "height": 8, "width": 8} for id in (40, 2)]
        annotations = [
            coco_set.annotation(11, 2, TRUCK, (1, 2, 4, 6)),
            coco_set.annotation(12, 40, CRATE, (0, 0, 2, 2)),
            coco_set.annotation(10, 2, CRATE, (0, 0, 8, 8)),
        ]
        dataset = opened(coco_set.coco(tmp_path, annotations, images=images))
        assert dataset.ids == ("40", "2")
        assert instances(dataset, 0).labels.tolist() == [1]
        assert instances(dataset, 1).labels.tolist() == [2, 1]
        assert instances(dataset, 1).boxes.tolist() == [[1, 2, 4, 6], [0, 0, 8, 8]]
        assert instances(dataset, 1).boxes.dtype == torch.float32
        masks = instances(dataset, 1).masks
        assert masks is not None
        assert masks.areas().tolist() == [12, 64]

    def test_a_polygon_counts_without_a_box_of_any_extent(self, tmp_path: Path) -> None:
        boxes = ([0, 0, 0, 0], [1, 1, 0, 5], [2, 2, -2, -2], None, [])
        annotations = [
            coco_set.annotation(number, 7, CRATE, (number, 0, number + 2, 2), bbox=box)
            for number, box in enumerate(boxes, start=1)
        ]
        dataset = opened(coco_set.coco(tmp_path, annotations))
        assert instances(dataset).boxes.tolist() == [[number, 0, number + 2, 2] for number in range(1, 6)]
        assert dataset.note == "given the box of their segmentation: 5 annotations without a box of any extent"
        assert Counter(kind for kind, _ in faults(tmp_path)) == {"box without extent": 3, "no box": 2}

    def test_neither_box_nor_polygon(self, tmp_path: Path) -> None:
        annotations = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2)),
            coco_set.annotation(2, 7, CRATE, (3, 3, 3, 3), segmentation=[[3, 3, 4, 4]], area=1),
        ]
        dataset = opened(coco_set.coco(tmp_path, annotations))
        assert len(instances(dataset)) == 1
        assert dataset.note == "skipped: 1 annotation without extent, see pixelwise data check"

    @pytest.mark.parametrize("nothing", [None, [], {}, [[]], [[], []], [[1, 1, 4, 3]], [[1, 1], []]])
    def test_a_box_without_segmentation_is_ignored(self, tmp_path: Path, nothing: Any) -> None:
        annotations = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2)),
            coco_set.annotation(2, 7, CRATE, (1, 1, 4, 3), segmentation=nothing),
        ]
        dataset = opened(coco_set.coco(tmp_path, annotations))
        found = instances(dataset)
        assert found.crowd is not None
        assert found.crowd.tolist() == [False, True]
        assert found.masks is not None
        assert found.masks.boxes.tolist() == [[0, 0, 2, 2], [1, 1, 4, 3]]
        assert semantic(dataset)[:3] == [
            [1, 1, 0, 0, 0, 0, 0, 0],
            [1, 1, 255, 255, 0, 0, 0, 0],
            [0, 255, 255, 255, 0, 0, 0, 0],
        ]
        assert dataset.note == (
            "ignored in training and evaluation: the boxes of 1 annotation without segmentation, "
            "see pixelwise data check"
        )

    def test_boxes_alone_are_no_masks(self, tmp_path: Path) -> None:
        annotations = [coco_set.annotation(number, 7, CRATE, (0, 0, 2, 2), segmentation=[]) for number in (1, 2)]
        with pytest.raises(DataError, match="none of its 2 annotations has a segmentation; boxes alone"):
            opened(coco_set.coco(tmp_path, annotations))

    def test_pickle(self, tmp_path: Path) -> None:
        dataset = opened(coco_set.coco(tmp_path, [coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2))]))
        assert semantic(pickle.loads(pickle.dumps(dataset))) == semantic(dataset)


class TestLabels:
    def test_categories_follow_background_by_id(self, tmp_path: Path) -> None:
        categories = [{"id": 9, "name": "truck"}, {"id": 3, "name": "crate"}]
        labels = opened(coco_set.coco(tmp_path, [], categories=categories)).labels
        assert labels.names == ("background", "crate", "truck")
        assert labels.dataset_ids == (0, 3, 9)
        assert labels.is_thing == (False, True, True)
        assert labels.background_id == 0

    def test_a_category_may_be_zero(self, tmp_path: Path) -> None:
        categories = [{"id": 0, "name": "crate"}, {"id": 1, "name": "truck"}]
        dataset = opened(coco_set.coco(tmp_path, [coco_set.annotation(1, 7, 0, (0, 0, 8, 8))], categories=categories))
        assert dataset.labels.names == ("background", "crate", "truck")
        assert dataset.labels.dataset_ids == (-1, 0, 1)
        assert semantic(dataset) == [[1] * 8] * 8

    def test_a_category_called_background_is_the_background(self, tmp_path: Path) -> None:
        categories = [{"id": 1, "name": "crate"}, {"id": 2, "name": "background"}]
        labels = opened(coco_set.coco(tmp_path, [], categories=categories)).labels
        assert labels.names == ("background", "crate")
        assert labels.dataset_ids == (2, 1)

    def test_the_categories_of_coco_are_recognised(self, tmp_path: Path) -> None:
        coco = published("coco")
        categories = [{"id": id, "name": name} for id, name in zip(coco.dataset_ids[1:], coco.names[1:], strict=True)]
        dataset = opened(
            coco_set.coco(tmp_path / "all", [coco_set.annotation(1, 7, 90, (0, 0, 8, 8))], categories=categories)
        )
        assert dataset.labels == coco
        assert semantic(dataset) == [[80] * 8] * 8
        fewer = opened(coco_set.coco(tmp_path / "few", [], categories=categories[:3])).labels
        assert fewer.names == ("background", "person", "bicycle", "car")

    def test_more_classes_than_a_byte_holds(self, tmp_path: Path) -> None:
        categories = [{"id": id, "name": f"kind {id}"} for id in range(1, 400)]
        dataset = opened(
            coco_set.coco(
                tmp_path,
                [
                    coco_set.annotation(1, 7, 300, (0, 0, 8, 4)),
                    coco_set.annotation(2, 7, 255, (0, 4, 8, 6)),
                    coco_set.annotation(3, 7, 1, (0, 6, 8, 8), iscrowd=1),
                ],
                categories=categories,
            )
        )
        assert [row[0] for row in semantic(dataset)] == [300] * 4 + [255] * 2 + [-1] * 2

    @pytest.mark.parametrize(
        ("categories", "why"),
        [
            ([], "no categories"),
            ([{"id": 1}], "expected an integer id and a name"),
            ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "2 categories have the id '1'"),
            ([{"id": 1, "name": " "}], "category 1 has an empty name"),
            ([{"id": "1", "name": "a"}, {"id": 2, "name": "b"}], "expected an integer id and a name"),
        ],
    )
    def test_faulty_categories(self, tmp_path: Path, categories: list[dict[str, Any]], why: str) -> None:
        with pytest.raises(DataError, match=f"instances_train.json: .*{why}"):
            opened(coco_set.coco(tmp_path, [], categories=categories))


class TestFiles:
    def test_the_year_need_not_be_written(self, tmp_path: Path) -> None:
        for split in ("train2017", "val2017"):
            coco_set.coco(tmp_path, [], split=split)
        assert splits_of(f"coco:{tmp_path}") == ("train", "val")
        for split in ("val", "val2017"):
            assert opened(tmp_path, split).image_path(0) == tmp_path / "val2017" / "a.png"

    def test_two_years_must_be_told_apart(self, tmp_path: Path) -> None:
        for split in ("train2014", "train2017"):
            coco_set.coco(tmp_path, [], split=split)
        assert splits_of(f"coco:{tmp_path}") == ("train2014", "train2017")
        with pytest.raises(DataError, match="could be any of @train2014, @train2017"):
            opened(tmp_path, "train")

    @pytest.mark.parametrize("folder", ["train", "train_images", "images/train", "images", "."])
    def test_where_images_may_lie(self, tmp_path: Path, folder: str) -> None:
        coco_set.coco(tmp_path, [])
        stored = drawing.write_image(tmp_path / "elsewhere" / "a.png", size_hw=(8, 8))
        (tmp_path / "train" / "a.png").unlink()
        (tmp_path / "train").rmdir()
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        stored.rename(tmp_path / folder / "a.png")
        assert opened(tmp_path)[0].image.shape == (3, 8, 8)

    def test_file_names_with_folders(self, tmp_path: Path) -> None:
        images = [{"id": 1, "file_name": "hall/north/a.png", "height": 8, "width": 8}]
        assert opened(coco_set.coco(tmp_path, [], images=images))[0].id == "1"

    def test_named_file_and_folder(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [])
        (tmp_path / "annotations" / "instances_train.json").rename(tmp_path / "boxes.json")
        (tmp_path / "train").rename(tmp_path / "photos")
        assert splits_of(f"coco:{tmp_path}?annotations=boxes.json&images=photos") == ("all",)
        assert opened(tmp_path, "all", "?annotations=boxes.json&images=photos").ids == ("7",)

    def test_missing_images_are_counted(self, tmp_path: Path) -> None:
        images = [{"id": id, "file_name": f"{id}.png", "height": 8, "width": 8} for id in range(4)]
        coco_set.coco(tmp_path, [], images=images)
        for name in ("1.png", "3.png"):
            (tmp_path / "train" / name).unlink()
        with pytest.raises(DataError, match=r"no image for '1', .*1\.png; 2 of 4 are missing"):
            opened(tmp_path)

    def test_no_folder_of_images(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [])
        (tmp_path / "train").rename(tmp_path / "photos")
        with pytest.raises(DataError, match="name it by \\?images="):
            opened(tmp_path)

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("{", "not JSON"),
            ("[]", "an object with images, annotations and categories"),
            ('{"images": [], "categories": []}', "no list 'annotations'"),
            ('{"images": [3], "annotations": [], "categories": []}', "no list 'images' of objects"),
            ('{"images": [], "annotations": [], "categories": []}', "no categories"),
            ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "no images"),
        ],
    )
    def test_other_json(self, tmp_path: Path, content: str, why: str) -> None:
        coco_set.coco(tmp_path, [])
        (tmp_path / "annotations" / "instances_train.json").write_text(content)
        with pytest.raises(DataError, match=f"instances_train.json: .*{why}"):
            opened(tmp_path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"segmentation": "x"}, "a str, not polygons or an RLE"),
            ({"segmentation": [[1, 2, 3, 4, 5]]}, "polygon 1 is not a list of numbers"),
            ({"segmentation": [[1, 2, 3, 4, "5", 6]]}, "polygon 1 is not a list of numbers"),
            ({"segmentation": [[0, 0, 1e9, 0, 1, 1]]}, r"polygon 1 has a coordinate of 1e\+09 pixels"),
            ({"segmentation": {"counts": [64]}}, "its RLE needs size"),
            ({"segmentation": {"counts": [-1, 65], "size": [8, 8]}}, "its RLE needs size"),
            ({"category_id": 4}, "category 4 is not in categories"),
            ({"image_id": 5}, "image 5 is not in images"),
            ({"bbox": [1, 2, 3]}, "is not four numbers"),
            ({"bbox": ["1", 2, 3, 4]}, "is not four numbers"),
            ({"iscrowd": "0"}, "its iscrowd is '0'; expected 0 or 1"),
            ({"iscrowd": 2}, "its iscrowd is 2; expected 0 or 1"),
            ({"area": "12"}, "its area is '12'; expected a number"),
            ({"image_id": "7"}, "its image_id is the text '7', images have the number 7"),
            ({"category_id": "3"}, "its category_id is the text '3', categories have the number 3"),
            ({"segmentation": [0, 0, 2, 0, 2, 2]}, r"one list of 6 values; expected a list of polygons"),
        ],
    )
    def test_unusable_annotations(self, tmp_path: Path, fields: dict[str, Any], why: str) -> None:
        annotations = [{**coco_set.annotation(5521, 7, CRATE, (0, 0, 2, 2)), **fields}]
        with pytest.raises(DataError, match=rf"instances_train\.json: annotation 5521 \(image .*\): .*{why}"):
            opened(coco_set.coco(tmp_path, annotations))

    @pytest.mark.parametrize(
        ("segmentation", "why"),
        [
            ({"size": [8, 8], "counts": [60, 2]}, "8×8"),
            ({"size": [4, 4], "counts": [10, 6]}, "the RLE is 4×4, the image 8×8"),
            ({"size": [8, 8], "counts": "not runs"}, "8×8"),
            ({"size": [8, 8], "counts": "o" * 99}, "8×8"),
        ],
    )
    def test_runs_that_do_not_fit_are_named_when_read(
        self, tmp_path: Path, segmentation: dict[str, Any], why: str
    ) -> None:
        annotations = [coco_set.annotation(5521, 7, CRATE, (0, 0, 2, 2), segmentation=segmentation)]
        dataset = opened(coco_set.coco(tmp_path, annotations))
        with pytest.raises(DataError, match=f"image 7, annotation 5521: .*{why}"):
            dataset[0]

    @pytest.mark.parametrize(
        ("image", "why"),
        [
            ({"id": 7}, "expected an id and a file_name"),
            ({"file_name": "a.png"}, "expected an id and a file_name"),
            ({"id": 7, "file_name": "a.png"}, "height None, width None"),
            ({"id": 7, "file_name": "a.png", "height": 0, "width": 8}, "height 0, width 8"),
            ({"id": 7, "file_name": "a.png", "height": 10**6, "width": 10**6}, "at most 200 megapixels"),
        ],
    )
    def test_unusable_image_entries(self, image: dict[str, Any], why: str) -> None:
        problems = list(image_problems([image]))
        assert [problem.fatal for problem in problems] == [True]
        assert why in problems[0].text

    def test_one_id_for_two_images(self, tmp_path: Path) -> None:
        images = [{"id": 7, "file_name": f"{name}.png", "height": 8, "width": 8} for name in "ab"]
        with pytest.raises(DataError, match=r"image 7 'b\.png': another image has the same id"):
            opened(coco_set.coco(tmp_path, [], images=images))

    def test_sizes_that_differ(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [])
        drawing.write_image(tmp_path / "train" / "a.png", size_hw=(8, 9))
        dataset = opened(tmp_path)
        with pytest.raises(DataError, match=r"a\.png: 8×9 pixels .* says 8×8 \(image '7'\)"):
            dataset[0]

    def test_an_unreadable_image(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [])
        (tmp_path / "train" / "a.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"a\.png: the file is empty \(image '7'\)"):
            opened(tmp_path)[0]

    def test_nonsense_in_every_field_is_reported_not_raised(self) -> None:
        for nonsense in (None, [], {}, "x", 1.5, -1, True, float("nan")):
            for field in ("id", "image_id", "category_id", "bbox", "segmentation"):
                entry = {**coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2)), field: nonsense}
                list(annotation_problems(entry, {7: {"id": 7, "file_name": "a.png"}}, {CRATE: 1}))
            for field in ("id", "file_name", "height", "width"):
                list(image_problems([{"id": 7, "file_name": "a.png", "height": 8, "width": 8, field: nonsense}]))


class TestTypes:
    """What Python, or another tool, writes for a number."""

    def test_whole_floats_are_whole(self, tmp_path: Path) -> None:
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[2:4, 1:6] = 1
        runs = run_lengths(mask)
        runs = {"size": [8.0, 8.0], "counts": [float(count) for count in runs["counts"]]}
        images = [{"id": 7.0, "file_name": "a.png", "height": 8.0, "width": 8.0}]
        coco_set.coco(
            tmp_path,
            [
                coco_set.annotation(1.0, 7.0, 3.0, (0, 0, 2, 2), iscrowd=0.0),  # pyright: ignore[reportArgumentType]
                coco_set.annotation(2.0, 7.0, 9.0, (1, 2, 6, 4), segmentation=runs),  # pyright: ignore[reportArgumentType]
            ],
            images=images,
            categories=[{"id": 3.0, "name": "crate"}, {"id": 9.0, "name": "truck"}],
        )
        drawing.write_image(tmp_path / "train" / "a.png", size_hw=(8, 8))
        dataset = opened(tmp_path)
        assert dataset.ids == ("7",)
        assert instances(dataset).boxes.tolist() == [[0, 0, 2, 2], [1, 2, 6, 4]]
        assert dataset.labels.dataset_ids == (0, 3, 9)
        assert faults(tmp_path) == []

    def test_ids_that_are_text_everywhere(self, tmp_path: Path) -> None:
        images = [{"id": "x7", "file_name": "a.png", "height": 8, "width": 8}]
        objects = [
            coco_set.annotation("one", "x7", "b", (0, 0, 2, 2)),  # pyright: ignore[reportArgumentType]
            coco_set.annotation("two", "x7", "a", (4, 4, 8, 8)),  # pyright: ignore[reportArgumentType]
        ]
        coco_set.coco(
            tmp_path, objects, images=images, categories=[{"id": "a", "name": "crate"}, {"id": "b", "name": "truck"}]
        )
        dataset = opened(tmp_path)
        assert dataset.labels.dataset_ids == (0, 1, 2)
        assert instances(dataset).labels.tolist() == [2, 1]
        assert faults(tmp_path) == []

    def test_category_ids_that_are_numbers_as_text(self, tmp_path: Path) -> None:
        categories = [{"id": "3", "name": "crate"}, {"id": "9", "name": "truck"}]
        objects = [coco_set.annotation(1, 7, "9", (0, 0, 2, 2))]  # pyright: ignore[reportArgumentType]
        dataset = opened(coco_set.coco(tmp_path, objects, categories=categories))
        assert dataset.labels.dataset_ids == (0, 3, 9)
        assert instances(dataset).labels.tolist() == [2]

    def test_crowds_alone_are_said(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2), iscrowd=True)])
        assert "all 1 annotation are crowds (iscrowd 1)" in str(opened(tmp_path).note)
        assert "all 1 annotation are crowds (iscrowd 1)" in notes(tmp_path)

    def test_stated_areas(self, tmp_path: Path) -> None:
        objects = [
            coco_set.annotation(number, 7, CRATE, (number, 0, 2 + number, 2), area=area)
            for number, area in enumerate((0, -1, 99, None))
        ]
        dataset = opened(coco_set.coco(tmp_path, objects))
        areas = instances(dataset).areas
        assert areas is not None
        assert areas.tolist() == [0, 4, 99, 4]
        assert "1 annotation with area 0: AP by size takes the stated area" in str(dataset.note)
        assert faults(tmp_path) == [("area", "its area is -1; that of its pixels is taken")]

    def test_one_fault_for_an_annotation(self, tmp_path: Path) -> None:
        objects = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2)),
            coco_set.annotation(2, 7, CRATE, (0, 0, 2, 2), segmentation=[0, 1, 2, 3, 200, 5, 120]),
            coco_set.annotation(3, 7, CRATE, (2, 2, 4, 4), segmentation=[[1], "x", [None, 2]]),
        ]
        assert [kind for kind, _ in faults(coco_set.coco(tmp_path, objects))] == ["segmentation", "segmentation"]


class TestClasses:
    def test_annotations_of_the_background_are_no_objects(self, tmp_path: Path) -> None:
        for name in ("background", "_background_"):
            objects = [coco_set.annotation(1, 7, 0, (0, 0, 8, 8)), coco_set.annotation(2, 7, 1, (0, 0, 2, 2))]
            categories = [{"id": 0, "name": name}, {"id": 1, "name": "part"}]
            dataset = opened(coco_set.coco(tmp_path / name, objects, categories=categories))
            assert dataset.labels.names == ("background", "part")
            assert instances(dataset).labels.tolist() == [1]
            assert "1 annotation of the background, no objects" in str(dataset.note)

    def test_the_root_of_roboflow_is_no_class(self, tmp_path: Path) -> None:
        for root in ("fishes", "fish"):
            categories = [
                {"id": 0, "name": root, "supercategory": "none"},
                {"id": 1, "name": "fish", "supercategory": root},
                {"id": 2, "name": "shell", "supercategory": root},
            ]
            objects = [coco_set.annotation(1, 7, 2, (0, 0, 2, 2))]
            dataset = opened(coco_set.coco(tmp_path / root, objects, categories=categories))
            assert dataset.labels.names == ("background", "fish", "shell")
            assert f"category '{root}' is none of the classes" in str(dataset.note)

    def test_two_categories_of_one_name(self, tmp_path: Path) -> None:
        categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]
        objects = [coco_set.annotation(1, 7, 1, (0, 0, 2, 2)), coco_set.annotation(2, 7, 2, (4, 0, 6, 2))]
        dataset = opened(coco_set.coco(tmp_path / "one", objects[1:], categories=categories))
        assert dataset.labels.dataset_ids == (0, 2)
        assert "one of two categories called 'a' is no class" in str(dataset.note)
        with pytest.raises(DataError, match="category 2 'a': category 1 has the same name; are they one"):
            opened(coco_set.coco(tmp_path / "both", objects, categories=categories))

    def test_names_that_look_the_same(self, tmp_path: Path) -> None:
        categories = [{"id": 1, "name": "part "}, {"id": 2, "name": "Part"}]
        coco_set.coco(tmp_path, [], categories=categories)
        assert "classes 'part ' and 'Part' differ in spaces or capitals alone" in notes(tmp_path)


class TestPlaces:
    """Where the files of other tools lie, and how they are named."""

    def written(self, root: Path, json_name: str, images: dict[str, str]) -> Path:
        """A JSON with the names of images → where they are stored."""
        entries = [{"id": number, "file_name": name, "height": 8, "width": 8} for number, name in enumerate(images, 1)]
        objects = [coco_set.annotation(number, number, CRATE, (0, 0, 2, 2)) for number in range(1, len(images) + 1)]
        content = {"images": entries, "annotations": objects, "categories": [{"id": 3, "name": "crate"}]}
        (root / json_name).parent.mkdir(parents=True, exist_ok=True)
        (root / json_name).write_text(json.dumps(content))
        for seed, place in enumerate(images.values()):
            drawing.write_image(root / place, seed=seed, size_hw=(8, 8))
        return root

    @pytest.mark.parametrize(
        ("json_name", "split", "place"),
        [
            ("train/_annotations.coco.json", "train", "train/a.png"),  # Roboflow
            ("valid/_annotations.coco.json", "val", "valid/a.png"),
            ("train/annotations.json", "train", "train/images/a.png"),  # Dataset Ninja
            ("val/labels.json", "val", "val/data/a.png"),  # FiftyOne
            ("labels.json", "all", "data/a.png"),
            ("annotations/instances_default.json", "default", "images/a.png"),  # CVAT
            ("annotations/instances_default.json", "default", "images/default/a.png"),  # Datumaro
            ("annotations/lvis_v1_train.json", "train", "train2017/a.png"),
            ("lvis_v1_val.json", "val", "val2017/a.png"),
            ("result.json", "all", "images/a.png"),  # Label Studio
        ],
    )
    def test_layouts_of_other_tools(self, tmp_path: Path, json_name: str, split: str, place: str) -> None:
        self.written(tmp_path, json_name, {"a.png": place})
        assert splits_of(f"coco:{tmp_path}") == (split,)
        assert opened(tmp_path, split).image_path(0) == tmp_path / place
        assert faults(tmp_path) == []

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("train\\a.png", "train/a.png"),
            ("a.png", "train/sub/a.png"),
            ("..\\..\\media\\upload\\4\\a.png", "train/a.png"),
            ("C:\\data\\train\\a.png", "train/a.png"),
            ("images/1/a.png", "train/a.png"),
            ("/mnt/data/train/a.png", "train/a.png"),
            (unicodedata.normalize("NFC", "fläche.png"), unicodedata.normalize("NFD", "train/fläche.png")),
            (unicodedata.normalize("NFD", "fläche.png"), unicodedata.normalize("NFC", "train/fläche.png")),
            ("A.PNG", "train/a.png"),
        ],
    )
    def test_names_of_other_systems(self, tmp_path: Path, name: str, place: str) -> None:
        self.written(tmp_path, "annotations/instances_train.json", {"b.png": "train/b.png", name: place})
        assert opened(tmp_path).image_path(1) == tmp_path / place
        assert faults(tmp_path) == []

    def test_another_image_is_not_taken(self, tmp_path: Path) -> None:
        """What several names could mean, or another entry has, or another split."""
        self.written(tmp_path, "annotations/instances_train.json", {"a.png": "train/a.png", "x/a.png": "val/a.png"})
        with pytest.raises(DataError, match=r"no image for .2., .*train/x/a\.png; 1 of 2 are missing"):
            opened(tmp_path)
        assert [(fault.kind, fault.where) for fault in check_dataset(DataSpec.parse(f"coco:{tmp_path}")).faults()] == [
            ("missing image", f"{tmp_path}/train/x/a.png (image 2)")
        ]

    def test_names_of_lvis(self, tmp_path: Path) -> None:
        images = [{"id": 7, "coco_url": "http://images.cocodataset.org/train2017/a.png", "height": 8, "width": 8}]
        coco_set.coco(tmp_path, [], images=images)
        drawing.write_image(tmp_path / "train" / "a.png", size_hw=(8, 8))
        assert opened(tmp_path).image_path(0) == tmp_path / "train" / "a.png"

    def test_what_is_there_is_named(self, tmp_path: Path) -> None:
        self.written(tmp_path, "labels/mine.json", {"a.png": "photos/a.png"})
        with pytest.raises(DataError, match=r"name another file by \?annotations=labels/mine\.json"):
            opened(tmp_path)
        assert opened(tmp_path, query="?annotations=labels/mine.json&images=photos").ids == ("1",)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE: down the columns, zeros first."""
    counts, value, run = [], 0, 0
    for bit in mask.T.ravel().tolist():
        if bit == value:
            run += 1
        else:
            counts.append(run)
            value, run = bit, 1
    return {"size": list(mask.shape), "counts": [*counts, run]}
