"""Sizes and pixels are those of the public codes, whose formulas stand here as they publish them."""

from __future__ import annotations

import math
from itertools import product

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms._presets import SemanticSegmentation

from pixelwise.errors import RecipeError
from pixelwise.importers import detectron2, semseg, torchvision, upsnet, yolact
from pixelwise.ops.resize_rule import ResizeRule
from tests.photographs import photographs

SIDES = (97, 161, 300, 333, 451, 480, 512, 640, 799, 800, 1001, 1333, 1334, 2048, 2500)
SIZES = [*product(SIDES, SIDES), (60, 2000), (2000, 61), (30, 41)]


PHOTOGRAPHS = pytest.mark.parametrize("photograph", photographs().values(), ids=photographs())


def seen(rule: ResizeRule, photograph: np.ndarray) -> Tensor:
    """What a network sees of it, f32[h, w, 3]."""
    return rule.resized(torch.from_numpy(photograph).permute(2, 0, 1)).permute(1, 2, 0).float()


# ---- the public codes


def detectron2_size(oldh: int, oldw: int, short_edge_length: int = 800, max_size: int = 1333) -> tuple[int, int]:
    """`ResizeShortestEdge.get_output_shape`."""
    h, w = oldh, oldw
    size = short_edge_length * 1.0
    scale = size / min(h, w)
    newh, neww = (size, scale * w) if h < w else (scale * h, size)
    if max(newh, neww) > max_size:
        scale = max_size * 1.0 / max(newh, neww)
        newh = newh * scale
        neww = neww * scale
    return int(newh + 0.5), int(neww + 0.5)


def upsnet_blob(im: np.ndarray, target_size: int, max_size: int) -> np.ndarray:
    """`prep_im_for_blob`, without the mean."""
    im = im.astype(np.float32, copy=False)
    im_size_min, im_size_max = np.min(im.shape[0:2]), np.max(im.shape[0:2])
    im_scale = float(target_size) / float(im_size_min)
    if np.round(im_scale * im_size_max) > max_size:
        im_scale = float(max_size) / float(im_size_max)
    return cv2.resize(im, None, None, fx=im_scale, fy=im_scale, interpolation=cv2.INTER_LINEAR)


def semseg_scaled(image: np.ndarray, base_size: int) -> np.ndarray:
    """`test` of `tool/test.py`, whose images are float32, at scale 1."""
    h, w, _ = image.shape
    long_size = round(1.0 * base_size)
    new_h = new_w = long_size
    if h > w:
        new_w = round(long_size / float(h) * w)
    else:
        new_h = round(long_size / float(w) * h)
    return cv2.resize(np.float32(image), (new_w, new_h), interpolation=cv2.INTER_LINEAR)


def yolact_image(image: np.ndarray, max_size: int) -> Tensor:
    """`FastBaseTransform`, without the mean."""
    img = torch.from_numpy(image).float()[None].permute(0, 3, 1, 2).contiguous()
    return F.interpolate(img, (max_size, max_size), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)


# ---- sizes


def test_sizes_are_those_of_torchvisions_detectors() -> None:
    theirs = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    differing = 0
    for size in SIZES:
        expected = theirs.resize(torch.empty(1, *size))[0].shape[1:]
        assert torchvision.DETECTION_RESIZE.size_of(size) == tuple(expected)
        differing += 800 not in expected and max(expected) < 1332
    assert differing, "none of these sizes shows that their short side may be 799"
    assert torchvision.DETECTION_RESIZE.size_of((480, 640)) == (800, 1066)


def test_sizes_are_those_of_torchvisions_preset() -> None:
    theirs = SemanticSegmentation(resize_size=520, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for size in SIZES[::7]:
        expected = theirs(Image.new("RGB", size[::-1])).shape[1:]
        assert torchvision.RESIZE.size_of(size) == tuple(expected)
    assert torchvision.RESIZE.size_of((480, 640)) == (520, 693)


def test_sizes_are_those_of_detectron2() -> None:
    for size in SIZES:
        assert detectron2.RESIZE.size_of(size) == detectron2_size(*size)


@pytest.mark.parametrize(
    ("rule", "sides"), [(upsnet.COCO_RESIZE, (800, 1333)), (upsnet.CITYSCAPES_RESIZE, (1024, 2048))]
)
def test_sizes_are_those_of_upsnet(rule: ResizeRule, sides: tuple[int, int]) -> None:
    for size in SIZES[::11]:
        assert rule.size_of(size) == upsnet_blob(np.zeros((*size, 1), np.uint8), *sides).shape[:2]


def test_long_sides_are_limited_as_torchvision_limits_them() -> None:
    rule = ResizeRule("short", 256, 400, rounding="torchvision")
    for size in ((300, 451), (451, 300), (100, 1000), (301, 470), (470, 302)):
        long, short = max(size), min(size)
        new_short, new_long = 256, int(256 * long / short)
        if new_long > 400:
            new_short, new_long = int(400 * short / long), 400
        assert rule.size_of(size) == ((new_short, new_long) if size[0] < size[1] else (new_long, new_short))


# ---- pixels


@PHOTOGRAPHS
def test_pixels_are_those_of_torchvisions_detectors(photograph: np.ndarray) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    theirs = GeneralizedRCNNTransform(800, 1333, mean, std)
    image = torch.from_numpy(photograph).permute(2, 0, 1).float() / 255
    expected = theirs.resize(theirs.normalize(image))[0].permute(1, 2, 0)
    found = (seen(torchvision.DETECTION_RESIZE, photograph) / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


@PHOTOGRAPHS
def test_pixels_are_those_of_torchvisions_preset(photograph: np.ndarray) -> None:
    theirs = SemanticSegmentation(resize_size=520, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = theirs(Image.fromarray(photograph)).permute(1, 2, 0)
    assert torch.equal(seen(torchvision.RESIZE, photograph) / 255, expected)


@PHOTOGRAPHS
def test_pixels_are_those_of_detectron2(photograph: np.ndarray) -> None:
    height, width = detectron2_size(*photograph.shape[:2])
    expected = np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.BILINEAR))
    assert np.array_equal(seen(detectron2.RESIZE, photograph).numpy(), expected)


@PHOTOGRAPHS
@pytest.mark.parametrize("base_size", [512, 2048])
def test_pixels_are_those_of_semseg(photograph: np.ndarray, base_size: int) -> None:
    expected = semseg_scaled(photograph, base_size)
    found = seen(semseg.RESIZE if base_size == 512 else semseg.CITYSCAPES_RESIZE, photograph).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.05  # of 255: cv2's weights have 11 bits


@PHOTOGRAPHS
@pytest.mark.parametrize("side", [550, 400])
def test_pixels_are_those_of_yolact(photograph: np.ndarray, side: int) -> None:
    assert torch.equal(seen(yolact.square(side), photograph), yolact_image(photograph, side))
    by_opencv = cv2.resize(photograph.astype(np.float32), (side, side))  # `Resize` of its other transform
    assert np.abs(seen(yolact.square(side), photograph).numpy() - by_opencv).max() < 0.05


@PHOTOGRAPHS
@pytest.mark.parametrize(
    ("rule", "sides"), [(upsnet.COCO_RESIZE, (800, 1333)), (upsnet.CITYSCAPES_RESIZE, (1024, 2048))]
)
def test_pixels_are_those_of_upsnet(photograph: np.ndarray, rule: ResizeRule, sides: tuple[int, int]) -> None:
    assert np.array_equal(seen(rule, photograph).numpy(), upsnet_blob(photograph, *sides))


# ---- the rule itself


@pytest.mark.parametrize(
    ("rule", "scale", "expected"),
    [
        (ResizeRule("long", 512), 1.0, (384, 512)),
        (ResizeRule("long", 512), 0.75, (288, 384)),
        (ResizeRule("short", 800, 1000), 1.0, (750, 1000)),
        (ResizeRule("short", 800, 1000), 0.5, (375, 500)),
        (ResizeRule("square", 550), 1.0, (550, 550)),
        (ResizeRule("square", 550), 2.0, (1100, 1100)),
        (ResizeRule("none", 0), 1.0, (600, 800)),
        (ResizeRule("none", 0), 1.25, (750, 1000)),
    ],
)
def test_each_side_can_be_given(rule: ResizeRule, scale: float, expected: tuple[int, int]) -> None:
    assert rule.size_of((600, 800), scale) == expected
    image = torch.zeros(3, 600, 800, dtype=torch.uint8)
    assert rule.resized(image, scale).shape == (3, *expected)


@pytest.mark.parametrize("rounding", ["nearest", "torchvision", "torchvision_detection", "detectron2"])
@pytest.mark.parametrize("filter", ["antialiased", "pillow", "bilinear", "opencv"])
@pytest.mark.parametrize("side", ["long", "short", "square"])
def test_an_image_of_one_row_keeps_a_pixel(rounding, filter, side) -> None:
    rule = ResizeRule(side, 8, 16 if side == "short" else 0, rounding, filter)
    for size in ((1, 900), (900, 1), (1, 1)):
        found = rule.resized(torch.full((3, *size), 9, dtype=torch.uint8))
        assert tuple(found.shape[1:]) == rule.size_of(size)
        assert min(found.shape[1:]) >= 1
        assert (found.float() - 9).abs().max() < 1e-3


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    for rule in (ResizeRule("none", 0), ResizeRule("long", 40), ResizeRule("short", 30, filter="bilinear")):
        assert rule.resized(image) is image


@pytest.mark.parametrize(
    ("text", "sides", "words"),
    [
        (640, ("long", 640, 0), "long side 640, not antialiased"),
        ("640", ("long", 640, 0), "long side 640, not antialiased"),
        ("short:600", ("short", 600, 0), "short side 600, not antialiased"),
        ("short:600:1000", ("short", 600, 1000), "short side 600, long side at most 1000, not antialiased"),
        ("square:550", ("square", 550, 0), "550×550, not antialiased"),
        ("none", ("none", 0, 0), "as it is"),
    ],
)
def test_another_size_keeps_rounding_and_filter(text, sides, words: str) -> None:
    rule = torchvision.DETECTION_RESIZE.changed(text)
    assert (rule.side, rule.length, rule.limit) == sides
    assert (rule.rounding, rule.filter) == ("torchvision_detection", "bilinear")
    assert str(rule) == words
    assert rule.input_size == (640 if text == "640" else text)
    assert rule.changed(rule.input_size) == rule
    assert rule.changed(None) is rule


@pytest.mark.parametrize(
    "text",
    [0, -3, "0", "", "big", "1.5", "long", "short", "short:", "short:8:9:9", "none:4", "square:5:6", "short:9:8"],
)
def test_what_is_no_size_is_refused(text) -> None:
    with pytest.raises(RecipeError, match="input size"):
        ResizeRule().changed(text)


def test_a_network_of_squares_has_no_images_as_they_are() -> None:
    assert ResizeRule("short", 320, 400, filter="bilinear").as_square() == ResizeRule("square", 320, filter="bilinear")
    with pytest.raises(RecipeError, match="squares"):
        ResizeRule("none", 0).as_square()


def test_words_tell_whether_pixels_are_averaged() -> None:
    assert str(ResizeRule("short", 800, 1333)) == "short side 800, long side at most 1333"
    assert "not antialiased" not in str(detectron2.RESIZE)
    assert str(yolact.square(550)) == "550×550, not antialiased"
    assert math.prod(yolact.square(550).size_of((3, 9))) == 550**2
