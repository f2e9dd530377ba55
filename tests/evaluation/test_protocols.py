"""Published test protocols against the literal formulas of their public codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixelwise.errors import RecipeError
from pixelwise.evaluation.protocols import Protocol, ProtocolPredictions, protocol_of
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.types import Annotation, Sample

LABELS = LabelSet.from_names("three", ["background", "apple", "pear"])
SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def small(system: str, **arguments: Any) -> Predictor:
    """A network whose predictions differ from pixel to pixel and are sure of some."""
    torch.manual_seed(0)
    arguments = {"backbone": "mobilenet_v2", **arguments}
    network = system_module(system).build(num_classes=3, **arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 65, 65))
        logits = network.eval()(torch.rand(2, 3, 65, 65)).logits
        network.classifier.weight *= 3 / logits.std()
    rule = ResizeRule("long", 64, filter="bilinear")
    return Predictor(network, ModelCard("semantic", system, LABELS, arguments=arguments, resize=rule), device="cpu")


def photograph(height: int, width: int) -> torch.Tensor:
    noise = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    return (F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)


# ---- semseg's tool/test.py, but for the names and the network


def net_process(model: nn.Module, image: np.ndarray, *, flip: bool = True) -> np.ndarray:
    tensor = torch.from_numpy(image.transpose((2, 0, 1))).float()[None] / 255
    if flip:
        tensor = torch.cat([tensor, tensor.flip(3)], 0)
    with torch.no_grad():
        output = model(tensor).logits
    _, _, h_i, w_i = tensor.shape
    _, _, h_o, w_o = output.shape
    if (h_o != h_i) or (w_o != w_i):
        output = F.interpolate(output, (h_i, w_i), mode="bilinear", align_corners=True)
    output = F.softmax(output, dim=1)
    output = (output[0] + output[1].flip(2)) / 2 if flip else output[0]
    return output.numpy().transpose(1, 2, 0)


def scale_process(
    model: nn.Module, image: np.ndarray, classes: int, crop: tuple[int, int], h: int, w: int, mean: list[float]
) -> np.ndarray:
    stride_rate = 2 / 3
    crop_h, crop_w = crop
    ori_h, ori_w, _ = image.shape
    pad_h, pad_w = max(crop_h - ori_h, 0), max(crop_w - ori_w, 0)
    pad_h_half, pad_w_half = int(pad_h / 2), int(pad_w / 2)
    if pad_h > 0 or pad_w > 0:
        image = cv2.copyMakeBorder(
            image, pad_h_half, pad_h - pad_h_half, pad_w_half, pad_w - pad_w_half, cv2.BORDER_CONSTANT, value=mean
        )
    new_h, new_w, _ = image.shape
    stride_h, stride_w = int(np.ceil(crop_h * stride_rate)), int(np.ceil(crop_w * stride_rate))
    grid_h = int(np.ceil(float(new_h - crop_h) / stride_h) + 1)
    grid_w = int(np.ceil(float(new_w - crop_w) / stride_w) + 1)
    prediction_crop = np.zeros((new_h, new_w, classes), dtype=float)
    count_crop = np.zeros((new_h, new_w), dtype=float)
    for index_h in range(grid_h):
        for index_w in range(grid_w):
            e_h = min(index_h * stride_h + crop_h, new_h)
            s_h = e_h - crop_h
            e_w = min(index_w * stride_w + crop_w, new_w)
            s_w = e_w - crop_w
            count_crop[s_h:e_h, s_w:e_w] += 1
            prediction_crop[s_h:e_h, s_w:e_w, :] += net_process(model, image[s_h:e_h, s_w:e_w].copy())
    prediction_crop /= np.expand_dims(count_crop, 2)
    prediction_crop = prediction_crop[pad_h_half : pad_h_half + ori_h, pad_w_half : pad_w_half + ori_w]
    return cv2.resize(prediction_crop, (w, h), interpolation=cv2.INTER_LINEAR)


def semseg(
    model: nn.Module, picture: torch.Tensor, *, base_size: int, crop: tuple[int, int], scales: list[float]
) -> np.ndarray:
    image = picture.permute(1, 2, 0).numpy().astype(np.float32)
    h, w, _ = image.shape
    prediction = np.zeros((h, w, 3), dtype=float)
    mean = (model.normalize.mean.flatten() * 255).tolist()
    for scale in scales:
        long_size = round(scale * base_size)
        new_h = new_w = long_size
        if h > w:
            new_w = round(long_size / float(h) * w)
        else:
            new_h = round(long_size / float(w) * h)
        image_scale = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        prediction += scale_process(model, image_scale, 3, crop, h, w, mean)
    return prediction / len(scales)


@pytest.mark.parametrize(
    ("size", "tta", "crop"), [((50, 70), False, 33), ((71, 40), True, 33), ((90, 120), True, 41), ((30, 20), False, 73)]
)
def test_pspnets_windows_are_semsegs(size: tuple[int, int], tta: bool, crop: int) -> None:
    predictor, picture, options = small("pspnet", output_stride=16), photograph(*size), Options(tta=tta)
    protocol = protocol_of(f"pspnet:{crop}", predictor, options)
    assert protocol == Protocol("pspnet", tuple(SCALES) if tta else (1.0,), crop=(crop, crop))
    expected = semseg(predictor.model, picture, base_size=64, crop=(crop, crop), scales=SCALES if tta else [1.0])
    predictions = ProtocolPredictions(predictor, protocol, options)
    found = predictions.probabilities(picture).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert expected.max(axis=2).std() > 0.01, "pixels differ"
    annotation = predictions(Sample(id="a", image=picture, truth=Annotation(), original_size=size))
    assert annotation.semantic.dtype == torch.uint8
    sure = np.sort(expected, axis=2)
    clear = sure[:, :, 2] - sure[:, :, 1] > 1e-3
    assert (annotation.semantic.numpy() == expected.argmax(axis=2))[clear].all()
    np.testing.assert_allclose(annotation.confidence.numpy(), expected.max(axis=2), atol=2e-4)


def test_windows_need_not_be_square() -> None:
    predictor, picture = small("pspnet", output_stride=16), photograph(50, 70)
    predictor.card = replace(predictor.card, training={"crop_size": [25, 41]})
    protocol = protocol_of("pspnet", predictor, Options())
    assert protocol.crop == (25, 41), "the crop that the model was trained on"
    expected = semseg(predictor.model, picture, base_size=64, crop=(25, 41), scales=[1.0])
    found = ProtocolPredictions(predictor, protocol, Options()).probabilities(picture).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(("length", "crop"), [(512, 473), (2048, 713)])
def test_without_a_known_crop_the_papers_is_taken(length: int, crop: int) -> None:
    predictor = small("pspnet", output_stride=16)
    predictor.card = replace(predictor.card, resize=ResizeRule("long", length))
    assert protocol_of("pspnet", predictor, Options()).crop == (crop, crop)


def test_deeplab_v3s_scales_are_averaged_at_the_size_of_the_image() -> None:
    predictor, picture = small("deeplab_v3", rates=(6, 12, 18)), photograph(50, 70)
    protocol = protocol_of("deeplab_v3", predictor, Options())
    assert protocol == Protocol("deeplab_v3", tuple(SCALES), output_stride=8)
    at_8 = small("deeplab_v3", rates=(6, 12, 18), output_stride=8).model
    at_8.load_state_dict(predictor.model.state_dict())
    align_corners, views = predictor.traits.align_corners, []
    for scale in SCALES:
        size = (round(round(scale * 64) / 70 * 50), round(scale * 64))
        image = F.interpolate(picture[None].float(), size=size, mode="bilinear", align_corners=False) / 255
        for flip in (False, True):
            with torch.no_grad():
                logits = at_8.eval()(image.flip(3) if flip else image).logits
            assert logits.shape[3] == -(-size[1] // 8)
            logits = logits.flip(3) if flip else logits
            logits = F.interpolate(logits, size=(50, 70), mode="bilinear", align_corners=align_corners)
            views.append(logits.softmax(dim=1)[0])
    found = ProtocolPredictions(predictor, protocol, Options()).probabilities(picture)
    torch.testing.assert_close(found, torch.stack(views).mean(dim=0), atol=2e-4, rtol=0)
    assert predictor.card.arguments.get("output_stride", 16) == 16, "the model itself is as it was"


def test_other_systems_keep_their_output_stride() -> None:
    predictor, picture = small("pspnet", output_stride=16), photograph(30, 40)
    protocol = protocol_of("deeplab_v3", predictor, Options())
    assert protocol.output_stride is None
    assert ProtocolPredictions(predictor, protocol, Options()).probabilities(picture).shape == (3, 30, 40)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("segnet", Options(), "--protocol segnet: expected pspnet, pspnet:CROP or deeplab_v3"),
        ("pspnet:x", Options(), "--protocol pspnet:x: expected"),
        ("pspnet:0", Options(), "--protocol pspnet:0: expected"),
        ("deeplab_v3:513", Options(), "--protocol deeplab_v3:513: expected"),
        ("pspnet", Options(tile=True), "--tile: not with --protocol pspnet"),
        ("deeplab_v3", Options(tta=True), "--tta: not with --protocol deeplab_v3"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, options: Options, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        protocol_of(text, small("pspnet", output_stride=16), options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_that_detect_objects_are_refused() -> None:
    network = system_module("yolact").build(num_classes=3, backbone="mobilenet_v2", channels=16)
    predictor = Predictor(network, ModelCard("instance", "yolact", LABELS), device="cpu")
    for name in ("pspnet", "deeplab_v3"):
        with pytest.raises(RecipeError, match=f"--protocol {name}: for semantic models; yolact is one for instance"):
            protocol_of(name, predictor, Options())
