from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.drawing.contact_sheet import CELL_HW, MARGIN, Compared, comparison_sheet, contact_sheet, fitted
from pixelwise.drawing.draw import (
    LEGEND_OBJECTS,
    OPACITY,
    LegendRow,
    draw,
    object_colour,
    object_legend,
    panoptic_legend,
    segment_colour,
)
from pixelwise.labels import LabelSet, published
from pixelwise.ops.panoptic import segment_places
from pixelwise.types import Annotation, Instances, Masks, Panoptic, Sample
from tests.inference.simple_models import LABELS, noise


def drawn(image: torch.Tensor, semantic: torch.Tensor, labels: LabelSet = LABELS, *, legend: bool = True) -> np.ndarray:
    return np.asarray(draw(image, Annotation(semantic=semantic), labels, legend=legend)).astype(int)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (50, 37), (37, 50), (480, 640), (900, 200)])
def test_the_picture_stands_at_the_top_left_pixel_for_pixel(size: tuple[int, int]):
    image = noise(*size)
    semantic = torch.zeros(size, dtype=torch.uint8)
    y, x = size[0] // 2, size[1] // 3
    semantic[y, x] = 1
    result = drawn(image, semantic)
    picture = result[: size[0], : size[1]]
    if size != (1, 1):  # which has no edge
        assert tuple(picture[y, x]) == LABELS.palette[1]
    untouched = np.ones(size, dtype=bool)
    untouched[y, x] = False
    assert (picture[untouched] == image.permute(1, 2, 0).numpy()[untouched]).all()
    assert result.shape[0] * result.shape[1] > size[0] * size[1]
    assert np.array_equal(picture, drawn(image, semantic, legend=False))


def test_colours_lie_over_the_image_and_edges_are_solid():
    image = torch.full((3, 20, 20), 100, dtype=torch.uint8)
    semantic = torch.zeros(20, 20, dtype=torch.uint8)
    semantic[5:15, 5:10] = 1
    semantic[5:15, 10:15] = 2
    result = drawn(image, semantic, legend=False)
    apple, pear = np.array(LABELS.palette[1]), np.array(LABELS.palette[2])
    assert (abs(result[8, 7] - (100 + OPACITY * (apple - 100))) <= 0.5).all()
    assert (result[8, 9] == apple).all()
    assert (result[8, 10] == pear).all()
    assert (result[5, 7] == apple).all()
    assert (result[4, 7] == 100).all()


def test_edges_grow_with_the_image():
    image = torch.zeros(3, 4, 4000, dtype=torch.uint8)
    semantic = torch.zeros(4, 4000, dtype=torch.uint8)
    semantic[:, 2000:] = 1
    solid = (drawn(image, semantic, legend=False) == LABELS.palette[1]).all(axis=2)
    assert solid[0].sum() == 4
    assert solid[0, 2000:2004].all()


def test_ignored_pixels_are_hatched_in_grey():
    image = torch.full((3, 60, 60), 10, dtype=torch.uint8)
    semantic = torch.full((60, 60), 255, dtype=torch.uint8)
    result = drawn(image, semantic, legend=False)
    assert (result == result[:, :, :1]).all()
    changed = (result != 10).any(axis=2)
    assert 0.2 < changed.mean() < 0.5


def test_large_images_are_painted_in_slabs_without_a_seam(monkeypatch: pytest.MonkeyPatch):
    image, semantic = noise(40, 30), noise(40, 30, seed=1)[0] % 4
    semantic[semantic == 3] = 255
    whole = drawn(image, semantic, legend=False)
    monkeypatch.setattr("pixelwise.drawing.draw.SLAB_PIXELS", 90)
    assert np.array_equal(drawn(image, semantic, legend=False), whole)


def test_a_legend_names_what_occurs(monkeypatch: pytest.MonkeyPatch):
    texts = []
    monkeypatch.setattr(
        "pixelwise.drawing.draw.add_legend",
        lambda picture, rows: texts.extend((row.colour, row.text) for row in rows) or picture,
    )
    semantic = torch.zeros(10, 100, dtype=torch.uint8)
    semantic[0, 0] = 1
    semantic[1:4] = 2
    semantic[5, :50] = 255
    draw(noise(10, 100), Annotation(semantic=semantic), LABELS)
    assert texts == [(LABELS.palette[2], "pear 30 %"), (LABELS.palette[1], "apple <1 %"), (None, "void 5 %")]


def test_an_image_of_background_alone_and_an_empty_annotation_stay_as_they_are():
    image = noise(10, 12)
    for annotation in (Annotation(), Annotation(semantic=torch.zeros(10, 12, dtype=torch.uint8))):
        result = np.asarray(draw(image, annotation, LABELS))
        assert np.array_equal(result, image.permute(1, 2, 0).numpy())


def test_many_classes_fit_beside_or_beneath():
    labels = LabelSet.from_names("many", [f"class number {index}" for index in range(200)])
    for size in ((400, 10), (10, 400), (400, 400)):
        semantic = (torch.arange(size[0] * size[1]) % 200).to(torch.uint8).view(size)
        result = drawn(noise(*size), semantic, labels)
        panel = result.copy()
        panel[: size[0], : size[1]] = 250
        colours, counts = np.unique(panel @ [65536, 256, 1], return_counts=True)
        areas = dict(zip(colours.tolist(), counts.tolist(), strict=True))
        for red, green, blue in labels.palette[1:]:
            assert areas.get(red * 65536 + green * 256 + blue, 0) > 20


def test_more_than_255_classes_draw():
    labels = LabelSet(
        name="many",
        names=tuple(f"class {index}" for index in range(300)),
        is_thing=(False,) * 300,
        palette=tuple((index % 256, index // 256, 90) for index in range(300)),
        dataset_ids=tuple(range(300)),
        void_ids=(65535,),
    )
    semantic = torch.tensor([[299, -1], [0, 7]], dtype=torch.int32)
    result = drawn(noise(2, 2), semantic, labels)
    assert tuple(result[0, 0]) == labels.palette[299]
    assert tuple(result[1, 1]) == labels.palette[7]


def objects(boxes: list[list[int]], **more: torch.Tensor) -> Instances:
    masks = Masks.from_crops([torch.ones(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes], boxes, (40, 60))
    return Instances(masks.boxes.float(), torch.ones(len(boxes), dtype=torch.int64), masks=masks, **more)


def test_small_objects_lie_unmixed_on_large_ones() -> None:
    image = torch.full((3, 40, 60), 100, dtype=torch.uint8)
    found = objects([[20, 10, 30, 20], [5, 5, 55, 35]], scores=torch.tensor([0.6, 0.9]))
    drawn = np.asarray(draw(image, Annotation(instances=found), published("voc"), legend=False)).astype(int)
    assert (drawn[0, 0] == 100).all()
    # the highest-scoring is number 0, whatever lies on top
    for number, (y, x) in ((1, (15, 25)), (0, (30, 50))):
        expected = 100 + (np.array(object_colour(number)) - 100) * OPACITY
        assert np.abs(drawn[y, x] - expected).max() <= 1
    assert tuple(drawn[10, 25]) == object_colour(1)  # the edges in full
    assert tuple(drawn[5, 30]) == object_colour(0)


def test_doubtful_objects_are_not_drawn_and_crowds_are_hatched() -> None:
    image = torch.full((3, 40, 60), 100, dtype=torch.uint8)
    doubtful = objects([[5, 5, 55, 35]], scores=torch.tensor([0.49]))
    assert (np.asarray(draw(image, Annotation(instances=doubtful), published("voc"))) == 100).all()
    crowd = objects([[5, 5, 55, 35]], crowd=torch.tensor([True]))
    drawn = np.asarray(draw(image, Annotation(instances=crowd), published("voc"), legend=False))[5:35, 5:55]
    changed = (drawn != 100).any(axis=2)
    assert 0.2 < changed.mean() < 0.5
    assert len(object_legend(objects([[0, 0, 5, 5]] * 30), published("voc"))) == LEGEND_OBJECTS + 1


def test_neighbouring_objects_have_colours_that_can_be_told_apart() -> None:
    colours = [np.array(object_colour(number)) for number in range(30)]
    assert min(np.abs(one - other).max() for one, other in pairwise(colours)) > 60
    assert len({tuple(colour) for colour in colours}) == 30


FRUIT = replace(LABELS, is_thing=(False, True, True))


def segments(ids: torch.Tensor, classes: dict[int, int], **more: torch.Tensor) -> Panoptic:
    return Panoptic(
        ids.int(),
        torch.tensor(list(classes), dtype=torch.int32),
        torch.tensor(list(classes.values())),
        **{"crowd": torch.zeros(len(classes), dtype=torch.bool), **more},
    )


def test_things_of_a_class_have_shades_of_its_colour_with_full_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two apples side by side and a pear beneath, on a background that stays as it is; void is hatched."""
    image = torch.full((3, 60, 60), 100, dtype=torch.uint8)
    ids = torch.ones(60, 60)
    ids[10:30, 10:30], ids[10:30, 30:50], ids[30:50, 10:50], ids[55:] = 4, 5, 7, 0
    panoptic = segments(ids, {7: 2, 1: 0, 4: 1, 5: 1})
    shown = draw(image, Annotation(panoptic=panoptic), FRUIT, legend=False)
    apple, pear = FRUIT.palette[1], FRUIT.palette[2]
    found = np.asarray(shown).astype(int)
    for (y, x), colour in {
        (20, 20): apple,
        (20, 40): segment_colour(apple, 1),
        (40, 30): segment_colour(pear, 3),
    }.items():
        assert np.abs(found[y, x] - (100 + (np.array(colour) - 100) * OPACITY)).max() <= 1
    assert tuple(found[20, 29]) == segment_colour(apple, 0) == apple
    assert tuple(found[20, 30]) == segment_colour(apple, 1) != apple
    assert (found[5, 5] == 100).all()
    assert 0.2 < (found[55:] != 100).any(axis=2).mean() < 0.5
    # a colour is of a class and an id: it does not change with what else is in the frame
    alone = segments(torch.where(ids == 5, 5, 1), {5: 1, 1: 0})
    assert tuple(np.asarray(draw(image, Annotation(panoptic=alone), FRUIT, legend=False))[20, 30]) == segment_colour(
        apple, 1
    )
    monkeypatch.setattr("pixelwise.drawing.draw.SLAB_PIXELS", 90)
    assert np.array_equal(np.asarray(draw(image, Annotation(panoptic=panoptic), FRUIT, legend=False)), found)


def test_shades_of_neighbours_can_be_told_apart() -> None:
    for colour in published("coco").palette:
        shades = [np.array(segment_colour(colour, number)) for number in range(12)]
        assert tuple(shades[0]) == colour
        assert min(np.abs(one - other).max() for one, other in pairwise(shades)) > 25
        assert all(shade.min() >= 0 and shade.max() <= 255 for shade in shades)


def test_the_legend_of_segments_names_things_then_stuff_then_what_is_void() -> None:
    ids = torch.ones(10, 100)
    ids[0, :10], ids[1, :20], ids[2:4], ids[4, :50] = 4, 5, 0, 6
    labels = replace(FRUIT, names=("sky", "apple", "pear"))

    def legend(panoptic: Panoptic) -> list[LegendRow]:
        places = segment_places(panoptic.ids.numpy(), panoptic.segment_ids.numpy())
        return panoptic_legend(panoptic, places, labels)

    panoptic = segments(ids, {4: 1, 5: 2, 1: 0, 6: 1, 9: 1}, scores=torch.tensor([0.5, 0.75, 0.9, 0.25, 1.0]))
    rows = legend(panoptic)
    apple, pear = labels.palette[1], labels.palette[2]
    assert [(row.colour, row.text) for row in rows] == [
        (segment_colour(apple, 2), "apple 0.25"),
        (segment_colour(pear, 1), "pear 0.75"),
        (apple, "apple 0.50"),
        (labels.palette[0], "sky 72 %"),
        (None, "void 20 %"),
    ]
    crowd = replace(panoptic, scores=None, crowd=panoptic.segment_ids == 6)
    assert legend(crowd)[0].text == "apple (crowd)"
    many = segments(torch.arange(40).view(4, 10) + 4, dict.fromkeys(range(4, 44), 1))
    rows = legend(many)
    assert len(rows) == LEGEND_OBJECTS + 1
    assert rows[-1].text == "and 16 more"


def test_an_image_that_is_all_void_is_drawn() -> None:
    empty = Panoptic(
        torch.zeros(8, 9, dtype=torch.int32),
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
    )
    shown = draw(noise(8, 9), Annotation(panoptic=empty), FRUIT)
    assert shown.size[0] > 9 or shown.size[1] > 8


def test_a_sheet_shows_segments_and_names_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of a clip: the same thing has the same colour in each, and stuff is drawn beside the things."""
    labels = replace(FRUIT, names=("sky", "apple", "pear"))
    image = torch.full((3, 120, 160), 100, dtype=torch.uint8)
    samples = []
    for frame in range(2):
        ids = torch.ones(120, 160)
        ids[40:80, 40 + 40 * frame : 80 + 40 * frame] = 5
        panoptic = segments(ids, {1: 0, 5: 1})
        instances = objects([[5, 5, 55, 35]])  # of the ground truth of panoptic sets, beside the segments
        truth = Annotation(panoptic=panoptic, semantic=panoptic.to_semantic(255), instances=instances)
        samples.append(Sample(image, truth, f"clip/{frame}", (120, 160), clip="clip", frame=frame))
    small = fitted(samples[0]).truth.panoptic
    assert small.ids.shape == CELL_HW
    assert (small.ids == 5).sum() == 4 * 40 * 40
    rows = []
    monkeypatch.setattr(
        "pixelwise.drawing.contact_sheet.add_legend",
        lambda picture, found, **_: rows.extend(row.text for row in found) or picture,
    )
    sheet = np.asarray(contact_sheet(samples, labels)).astype(int)
    assert rows == ["sky 92 %", "apple 8 %"]
    thing = 100 + (np.array(segment_colour(labels.palette[1], 1)) - 100) * OPACITY
    for column, x in enumerate((120, 200)):
        left = MARGIN + column * (CELL_HW[1] + MARGIN)
        assert np.abs(sheet[MARGIN + 120, left + x] - thing).max() <= 1
        assert np.abs(sheet[MARGIN + 20, left + 10] - 100 * (1 - OPACITY)).max() <= 1


def test_objects_that_are_boxes_alone_leave_the_picture_as_it_is() -> None:
    found = Annotation(instances=Instances(boxes=torch.tensor([[1.0, 1, 5, 5]]), labels=torch.tensor([1])))
    sample = Sample(noise(20, 30), Annotation(semantic=torch.zeros(20, 30, dtype=torch.uint8)), "a", (20, 30))
    assert fitted(sample, found).truth.semantic is None
    shown = comparison_sheet([Compared(fitted(sample), fitted(sample, found).truth, ("a", "said"))], LABELS)
    assert shown.size[0] > 3 * CELL_HW[1]


def whole_boxes(*boxes: tuple[int, int, int, int], size: tuple[int, int], labels: list[int]) -> Instances:
    masks = Masks.from_crops([torch.ones(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes], list(boxes), size)
    return Instances(masks.boxes.float(), torch.tensor(labels), masks=masks, scores=torch.ones(len(boxes)))


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    assert before.size == after.size
    return (np.asarray(before) != np.asarray(after)).any(axis=2)


def test_names_stand_at_the_objects_and_change_with_the_class():
    image = noise(120, 200)
    pictures = []
    for label in (1, 2):
        annotation = Annotation(instances=whole_boxes((100, 60, 150, 110), size=(120, 200), labels=[label]))
        plain, named = (draw(image, annotation, LABELS, legend=False, names=names) for names in (False, True))
        rows, columns = np.nonzero(changed(plain, named))
        assert rows.min() >= 40
        assert rows.max() < 60  # above the box
        assert columns.min() == 100
        pictures.append(np.asarray(named))
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (190, 0, 200, 10), (190, 110, 200, 120), (0, 0, 200, 120)])
def test_a_name_at_the_edge_stays_in_the_picture(box: tuple[int, int, int, int]):
    annotation = Annotation(instances=whole_boxes(box, size=(120, 200), labels=[1]))
    plain, named = (draw(noise(120, 200), annotation, LABELS, legend=False, names=names) for names in (False, True))
    assert changed(plain, named).sum() > 200
    tiny = Annotation(instances=whole_boxes((0, 0, 2, 2), size=(3, 4), labels=[1]))
    plain, named = (draw(noise(3, 4), tiny, LABELS, legend=False, names=names) for names in (False, True))
    assert not changed(plain, named).any()  # no room for any


def test_names_do_not_cover_each_other():
    annotation = Annotation(instances=whole_boxes((50, 50, 90, 90), (51, 51, 90, 90), size=(120, 200), labels=[1, 2]))
    first = Annotation(instances=whole_boxes((50, 50, 90, 90), size=(120, 200), labels=[1]))
    written = []
    for one in (annotation, first):
        plain, named = (draw(noise(120, 200), one, LABELS, legend=False, names=names) for names in (False, True))
        written.append(changed(plain, named)[:50])
    assert (written[0] == written[1]).all()


def test_classes_are_listed_in_the_picture_in_the_order_of_the_labels():
    semantic = torch.zeros(200, 300, dtype=torch.uint8)
    semantic[:150, :150] = 2
    semantic[:20, 150:] = 1
    both = Annotation(semantic=semantic)
    plain, named = (draw(noise(200, 300), both, LABELS, legend=False, names=names) for names in (False, True))
    rows, columns = np.nonzero(changed(plain, named))
    assert rows.max() == 199
    assert columns.min() == 0
    assert columns.max() < 100
    alone = Annotation(semantic=torch.where(semantic == 1, 0, semantic))
    plain, named = (draw(noise(200, 300), alone, LABELS, legend=False, names=names) for names in (False, True))
    assert np.nonzero(changed(plain, named))[0].min() > rows.min()  # one line less
    nothing = Annotation(semantic=torch.zeros(200, 300, dtype=torch.uint8))
    plain, named = (draw(noise(200, 300), nothing, LABELS, legend=False, names=names) for names in (False, True))
    assert not changed(plain, named).any()


def test_the_things_and_the_stuff_of_a_panoptic_picture_are_named():
    ids = torch.zeros(200, 300, dtype=torch.int32)
    ids[100:] = 2  # stuff of class 1
    ids[50:90, 200:250] = 5
    labels = replace(LABELS, is_thing=(False, False, True))
    panoptic = Panoptic(
        ids, torch.tensor([2, 5], dtype=torch.int32), torch.tensor([1, 2]), torch.zeros(2, dtype=torch.bool)
    )
    annotation = Annotation(panoptic=panoptic)
    plain, named = (draw(noise(200, 300), annotation, labels, legend=False, names=names) for names in (False, True))
    written = changed(plain, named)
    assert written[30:50, 200:240].any()
    assert written[180:, :60].any()
    assert written[:, 250:].sum() == 0


def test_objects_of_sheets_have_their_names():
    image = noise(*CELL_HW)
    instances = whole_boxes((100, 60, 150, 110), size=CELL_HW, labels=[1])
    instances = replace(instances, scores=None)
    sample = Sample(image, Annotation(instances=instances), "a", CELL_HW)
    compared = [Compared(sample, sample.truth, ("a", "AP 1"))]
    plum = renamed("plum")
    assert changed(contact_sheet([sample], LABELS), contact_sheet([sample], plum)).any()
    assert changed(comparison_sheet(compared, LABELS), comparison_sheet(compared, plum)).any()


def renamed(name: str) -> LabelSet:
    return replace(LABELS, names=(LABELS.names[0], name, *LABELS.names[2:]))
