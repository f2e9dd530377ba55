"""Faults of a whole split: void where a class should be, palettes that differ, and no ground truth at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec
from pixelwise.data.tools.check import Report, check_dataset
from pixelwise.data.tools.check_split import NO_TRUTH
from tests.data.drawing import write_image, write_mask
from tests.data.formats import davis_set, kitti_step_set, voc_set

HALF = np.array([[0, 0, 0, 255, 255, 255]] * 4)


def checked(spec: str) -> Report:
    return check_dataset(DataSpec.parse(spec))


def kinds(spec: str) -> list[str]:
    return [fault.kind for fault in checked(spec).faults()]


def masks(root: Path, ids: list[np.ndarray], *, names: str = "floor\nwall\n") -> str:
    """A set of one split."""
    for seed, one in enumerate(ids):
        write_image(root / "images" / "train" / f"{seed}.png", seed=seed)
        write_mask(root / "masks" / "train" / f"{seed}.png", one)
    (root / "labels.txt").write_text(names)
    return f"masks:{root}"


class TestVoidForAClass:
    def test_masks_of_0_and_255_where_there_are_two_classes(self, tmp_path: Path) -> None:
        spec = masks(tmp_path, [HALF] * 3)
        (fault,) = checked(spec).faults()
        assert fault == Fault("void in place of a class", str(tmp_path / "images" / "train"), fault.text)
        assert fault.text.startswith("3 of 3 masks hold void (255), the only class is 'floor', and 'wall' never occurs")

    def test_one_mask_of_void_among_empty_ones(self, tmp_path: Path) -> None:
        assert kinds(masks(tmp_path, [HALF, HALF * 0, HALF * 0])) == ["void in place of a class"]

    def test_void_beside_both_classes_is_right(self, tmp_path: Path) -> None:
        assert kinds(masks(tmp_path, [HALF, (HALF > 0) * 1])) == []

    def test_void_around_a_set_of_one_class_is_right(self, tmp_path: Path) -> None:
        assert kinds(masks(tmp_path, [HALF] * 2, names="road\n")) == []

    def test_where_there_are_more_classes_most_masks_hold_void(self, tmp_path: Path) -> None:
        names = "floor\nwall\nlamp\n"
        assert kinds(masks(tmp_path / "a", [HALF, HALF, HALF * 0], names=names)) == ["void in place of a class"]
        assert kinds(masks(tmp_path / "b", [HALF, HALF * 0, HALF * 0], names=names)) == []

    def test_in_the_layout_of_voc(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "ab"})
        for name in "ab":
            write_mask(tmp_path / "SegmentationClass" / f"{name}.png", HALF)
        assert kinds(f"voc:{tmp_path}") == ["void in place of a class"]

    def test_in_masks_of_davis_with_a_palette(self, tmp_path: Path) -> None:
        davis_set.davis(tmp_path)
        for path in (tmp_path / "Annotations" / "480p" / "0003").glob("*.png"):
            picture = Image.fromarray(HALF.astype(np.uint8))
            picture.putpalette([0, 0, 0] * 255 + [255, 255, 255])
            picture.save(path)
        assert kinds(f"davis:{tmp_path}@val") == [NO_TRUTH, "void in place of a class"]


class TestPalettes:
    def write(self, path: Path, ids: np.ndarray, colours: list[int]) -> None:
        picture = Image.fromarray(ids.astype(np.uint8))
        picture.putpalette(colours)
        picture.save(path)

    @pytest.mark.parametrize("swapped", [False, True])
    def test_a_note_where_they_differ(self, tmp_path: Path, *, swapped: bool) -> None:
        ids = (HALF > 0) * 1
        spec = masks(tmp_path, [ids, ids])
        black, white = [0, 0, 0], [255, 255, 255]
        self.write(tmp_path / "masks" / "train" / "0.png", ids, black + white)
        self.write(tmp_path / "masks" / "train" / "1.png", ids, white + black if swapped else black + white)
        report = checked(spec)
        assert report.faults() == ()
        found = [note for note in report.splits[0].notes if note.startswith("palettes differ")]
        assert len(found) == swapped
        if swapped:
            assert "in 1 mask: 'floor' is (0, 0, 0) in 0.png, (255, 255, 255) in 1.png" in found[0]


class TestNoTruth:
    def test_clips_in_which_everything_is_void(self, tmp_path: Path) -> None:
        kitti_step_set.kitti_step(tmp_path)
        for path in (tmp_path / "panoptic_maps" / "val").rglob("*.png"):
            Image.fromarray(np.full((4, 6, 3), (255, 0, 0), dtype=np.uint8)).save(path)
        (fault,) = checked(f"kitti-step:{tmp_path}@val").faults()
        assert fault.kind == NO_TRUTH
        assert fault.text == f"no image has a segment, of 3 images; looked for in {tmp_path}/panoptic_maps/val" or (
            fault.text.startswith("no image has a segment; looked for in")
        )
