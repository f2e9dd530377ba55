from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pixelwise.contracts import Traits
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.models import deeplab_v3_plus
from pixelwise.ops.resize import long_side_size, resize_image
from pixelwise.ops.resize_rule import ResizeRule
from tests.inference.simple_models import noise, pointwise, pointwise_card

SIZES = [(1, 1), (1, 2), (3, 400), (400, 3), (17, 31), (64, 64), (33, 32)]


@pytest.fixture(scope="module")
def deeplab() -> Predictor:
    torch.manual_seed(0)
    module = deeplab_v3_plus.build(num_classes=3, backbone="mobilenet_v2", channels=16)
    return Predictor(module, pointwise_card(system="deeplab_v3_plus", resize=ResizeRule(length=64)), device="cpu")


def scores_by_hand(predictor: Predictor, image: torch.Tensor, long_side: int, *, flip: bool = False) -> torch.Tensor:
    pixels = resize_image(image, long_side_size((image.shape[1], image.shape[2]), long_side)).float()[None] / 255
    with torch.no_grad():
        logits = predictor.model(pixels.flip(3) if flip else pixels).logits
    return logits.flip(3) if flip else logits


def test_colours_are_told_apart_at_the_size_of_the_image(predictor: Predictor):
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[0, :, :20] = 255
    image[1, :, 40:] = 255
    scene = predictor(image)
    assert scene.semantic.shape == (40, 60)
    assert scene.semantic.dtype == torch.uint8
    assert (scene.semantic[:, :18] == 1).all()
    assert (scene.semantic[:, 22:38] == 0).all()
    assert (scene.semantic[:, 42:] == 2).all()
    assert 0 < scene.confidence.min() <= scene.confidence.max() <= 1
    assert scene.semantic is scene.annotation.semantic
    assert scene.seconds > 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("tta", [False, True])
def test_any_size_of_image(deeplab: Predictor, size: tuple[int, int], tile: bool, tta: bool):
    scene = deeplab(noise(*size), tile=tile, tta=tta)
    assert scene.semantic.shape == size
    assert scene.confidence.shape == size
    assert scene.confidence.isfinite().all()
    assert scene.semantic.max() < 3


def test_kinds_of_input_agree_and_a_list_gives_a_list(deeplab: Predictor, tmp_path: Path):
    image = noise(30, 44)
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "a.png")
    given = [str(tmp_path / "a.png"), Image.fromarray(array), array, image, image.float() / 255]
    scenes = deeplab(given)
    assert isinstance(scenes, list)
    assert [scene.name for scene in scenes] == [str(tmp_path / "a.png"), None, None, None, None]
    for scene in scenes:
        assert torch.equal(scene.semantic, scenes[0].semantic)
        assert torch.equal(scene.confidence, scenes[0].confidence)
    assert deeplab([]) == []
    with pytest.raises(DataError):
        deeplab(np.zeros((4, 4, 7), np.uint8))


def test_a_scene_can_be_changed_in_place(predictor: Predictor):
    scene = predictor(noise(9, 9))
    scene.confidence.mul_(0.5)
    scene.semantic[0, 0] = 2


def test_logits_at_the_size_of_the_network_and_at_any_other(deeplab: Predictor):
    image = noise(48, 96)
    logits = deeplab.logits(image)
    assert torch.allclose(logits, scores_by_hand(deeplab, image, 64)[0], atol=1e-5)
    assert logits.shape == (3, 8, 16)
    full = deeplab.logits(image, (48, 96))
    assert full.shape == (3, 48, 96)
    scene = deeplab(image)
    assert (full.argmax(0) == scene.semantic).float().mean() > 0.999
    assert torch.allclose(full.softmax(0).amax(0), scene.confidence, atol=1e-5)
    assert torch.equal(deeplab.logits(image, size=(48, 96)), full)


def test_the_input_size_of_the_model_is_used_and_can_be_changed(deeplab: Predictor):
    image = noise(50, 80)
    for input_size, option in ((64, None), (96, 96)):
        logits = scores_by_hand(deeplab, image, input_size)
        full = F.interpolate(logits, size=(50, 80), mode="bilinear", align_corners=False)[0]
        confidence = deeplab(image, input_size=option).confidence
        assert torch.allclose(confidence, full.softmax(0).amax(0), atol=1e-5)


def test_tta_is_the_mean_over_scales_and_mirror_images(deeplab: Predictor):
    image = noise(48, 64)
    grid = scores_by_hand(deeplab, image, 64).shape[2:]
    views = []
    for long_side in (48, 64, 80):
        for flip in (False, True):
            logits = scores_by_hand(deeplab, image, long_side, flip=flip)
            views.append(F.interpolate(logits, size=grid, mode="bilinear", align_corners=False).softmax(1))
    mean = torch.stack(views).mean(0)
    full = F.interpolate(mean.log(), size=(48, 64), mode="bilinear", align_corners=False)[0]
    scene = deeplab(image, tta=True)
    assert torch.allclose(scene.confidence, full.softmax(0).amax(0), atol=1e-5)
    assert (scene.semantic == full.argmax(0)).float().mean() > 0.999
    # a constant image has the same mirror image, so its prediction must mirror itself
    plain = deeplab(torch.full((3, 32, 32), 77, dtype=torch.uint8), tta=True).confidence
    assert torch.allclose(plain, plain.flip(1), atol=1e-4)


@pytest.mark.parametrize("size", [(20, 30), (32, 32), (80, 41), (5, 100), (33, 33)])
def test_tiles_of_a_pointwise_network_equal_the_whole(predictor: Predictor, size: tuple[int, int]):
    image = noise(*size)
    whole = predictor(image, input_size=max(size))
    tiled = predictor(image, tile=True)
    assert torch.allclose(tiled.confidence, whole.confidence, atol=1e-5)
    assert torch.equal(tiled.semantic, whole.semantic)


def test_one_window_is_the_whole_image_at_its_own_size(deeplab: Predictor):
    image = noise(40, 56)
    whole = deeplab(image, input_size=56)
    tiled = deeplab(image, tile=True)
    assert torch.allclose(tiled.confidence, whole.confidence, atol=1e-5)


def test_tiles_with_tta_are_the_mean_of_the_windows(deeplab: Predictor):
    """Two windows of 64 over 64×80, each by the formula of tta, averaged where both have a pixel."""
    image = noise(64, 80)
    total, count = torch.zeros(3, 64, 80), torch.zeros(64, 80)
    for left in (0, 16):
        window = image[:, :, left : left + 64]
        views = [
            F.interpolate(scores_by_hand(deeplab, window, side, flip=flip), size=(16, 16), mode="bilinear").softmax(1)
            for side in (48, 64, 80)
            for flip in (False, True)
        ]
        log = torch.stack(views).mean(0).log()
        total[:, :, left : left + 64] += F.interpolate(log, size=(64, 64), mode="bilinear")[0].softmax(0)
        count[:, left : left + 64] += 1
    scene = deeplab(image, tile=True, tta=True)
    assert torch.allclose(scene.confidence, (total / count).amax(0), atol=1e-5)


def test_enlarging_an_image_moves_nothing(predictor: Predictor):
    """A disc, and the disc twice as large, give the same prediction at corresponding pixels."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((y - 25) ** 2 + (x - 38) ** 2 < 15**2).to(torch.uint8) * 255
    image = torch.stack([disc, torch.zeros_like(disc), torch.zeros_like(disc)])
    double = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    small, large = predictor(image, input_size=64).semantic, predictor(double, input_size=64).semantic
    disagreement = (large != small.repeat_interleave(2, 0).repeat_interleave(2, 1)).float().mean()
    assert disagreement < 0.02
    centre = [coordinates.float().mean() for coordinates in torch.nonzero(large == 1, as_tuple=True)]
    assert abs(centre[0] - (25 + 0.5) * 2 + 0.5) < 0.3
    assert abs(centre[1] - (38 + 0.5) * 2 + 0.5) < 0.3


def test_pixels_of_low_confidence_are_void(predictor: Predictor):
    image = noise(20, 20)
    scene = predictor(image, score_threshold=0.8)
    assert torch.equal(scene.semantic == 255, scene.confidence < 0.8)
    assert 0 < (scene.semantic == 255).sum() < 400
    kept = scene.semantic != 255
    assert torch.equal(scene.semantic[kept], predictor(image).semantic[kept])
    assert (predictor(image, score_threshold=0).semantic != 255).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_threshold": 1.5}, "score threshold 1.5"),
        ({"score_threshold": -1}, "score threshold -1"),
        ({"input_size": 0}, "input size 0"),
    ],
)
def test_impossible_options_are_one_line(predictor: Predictor, options: dict, words: str):
    with pytest.raises(RecipeError, match=words):
        predictor(noise(4, 4), **options)


def test_the_stored_module_keeps_its_keys(predictor: Predictor):
    assert list(predictor.model.state_dict()) == ["classifier.weight", "classifier.bias"]
    assert not predictor.model.training
    assert predictor.device == torch.device("cpu")
    assert predictor.card.system == "pointwise"
    assert predictor.name == "pointwise"
    images = torch.rand(2, 3, 5, 6)
    assert predictor.model(images).logits.shape == (2, 3, 5, 6)


def test_tta_makes_the_six_passes_that_it_states(predictor: Predictor):
    passes: list[tuple[int, int]] = []
    predictor.model.register_forward_hook(lambda _, images, __: passes.append(tuple(images[0].shape[2:])))
    predictor(noise(32, 16))
    assert passes == [(32, 16)]
    passes.clear()
    predictor(noise(32, 16), tta=True)
    assert sorted(passes) == [(24, 12)] * 2 + [(32, 16)] * 2 + [(40, 20)] * 2
    passes.clear()
    predictor(noise(32, 48), tta=True, tile=True, input_size=32)
    assert len(passes) == 2 * 6, "for each window"


def test_a_number_of_the_model_that_changes_counts_from_the_next_image(predictor: Predictor):
    assert predictor.logits(noise(32, 32)).shape == (3, 32, 32)
    predictor.model.stride = 2
    assert predictor.logits(noise(32, 32)).shape == (3, 16, 16)


def test_annotate_is_the_prediction_of_a_call(deeplab: Predictor):
    image = noise(30, 40)
    for options in ({}, {"tta": True}, {"tile": True, "input_size": 24}, {"score_threshold": 0.5}):
        annotation, scene = deeplab.annotate(image, Options(**options)), deeplab(image, **options)
        assert torch.equal(annotation.semantic, scene.semantic)
        assert torch.equal(annotation.confidence, scene.confidence)


def test_a_module_in_training_mode_is_put_in_evaluation_mode():
    module = pointwise().train()
    Predictor(module, pointwise_card(), device="cpu")
    assert not module.training


def test_the_limit_on_objects_means_nothing_to_a_semantic_model(predictor: Predictor):
    image = noise(4, 4)
    assert torch.equal(predictor(image, max_detections=100).semantic, predictor(image).semantic)


def test_scores_are_enlarged_as_the_model_says(deeplab: Predictor, monkeypatch: pytest.MonkeyPatch):
    image = noise(48, 96)
    coarse = deeplab.logits(image)
    aligned = F.interpolate(coarse[None], size=(48, 96), mode="bilinear", align_corners=True)[0]
    monkeypatch.setattr(deeplab.model, "traits", Traits(align_corners=True))
    torch.testing.assert_close(deeplab.logits(image, (48, 96)), aligned)
    tiled = deeplab(image, tile=True, input_size=96)  # one window
    own = F.interpolate(scores_by_hand(deeplab, image, 96), size=(48, 96), mode="bilinear", align_corners=True)[0]
    assert torch.allclose(tiled.confidence, own.softmax(0).amax(0), atol=1e-5)
    views = [
        F.interpolate(
            scores_by_hand(deeplab, image, side, flip=flip), size=coarse.shape[1:], mode="bilinear", align_corners=True
        ).softmax(1)
        for side in (48, 64, 80)
        for flip in (False, True)
    ]
    mean = F.interpolate(torch.stack(views).mean(0).log(), size=(48, 96), mode="bilinear", align_corners=True)[0]
    confidence = deeplab(image, tta=True, input_size=64).confidence
    assert torch.allclose(confidence, mean.softmax(0).amax(0), atol=1e-5)
