"""What is fuzzed: small valid inputs of every reader, and the command lines that read them."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from pixelwise.cli.app import main
from pixelwise.data.spec import format_names
from pixelwise.data.tools.convert import writable_formats
from pixelwise.inference.load import load, weights_digest
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.predictor import Options
from pixelwise.inference.systems import system_module
from pixelwise.inference.video.input import open_video
from pixelwise.inference.video.predict import VideoJob, look_for_results, predict_video
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from tests.data.drawing import write_image
from tests.data.formats.coco_set import annotation, coco
from tests.data.formats.masks_set import masks as masks_set
from tests.data.sets import write_tiny_set
from tests.drawn_scenes import write_masks_tree
from tests.small_videos import squares, write_video

Words = Sequence[str | Path]


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: of it.
        build: writes the sound files into `data` below the folder of a case.
        commands: the command lines, of which one is run, by the folder of a case.
        spared: parts of the paths of files that are not damaged.
    """

    name: str
    build: Callable[[Path], object]
    commands: Callable[[Path, random.Random], Words]
    spared: tuple[str, ...] = ()


def run_quietly(*words: str | Path) -> int:
    """Run a command line in this process; gives its exit code."""
    sys.argv = ["pixelwise", *map(str, words)]
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    raise AssertionError("main returns by SystemExit alone")


def targets(shared: Path) -> list[Target]:
    """All of them.

    Args:
        shared: holds models and sets that are only read.
    """
    _write_shared(shared)
    return [*(_of_format(name) for name in format_names()), *_of_labels(), *_of_models(shared), *_of_results(shared)]


LABELS = LabelSet.from_names("fruit", ["background", "apple", "pear"])


def _write_shared(shared: Path) -> None:
    module = system_module("pointwise").build(num_classes=3, stride=1)
    card = ModelCard(task="semantic", system="pointwise", labels=LABELS, resize=ResizeRule(length=32))
    write_model(shared / "pointwise", module.state_dict(), card)
    things = replace(LABELS, is_thing=(False, True, True))
    card = ModelCard(
        task="panoptic", system="panels", labels=things, resize=ResizeRule(length=64), arguments={"uses_memory": True}
    )
    panels = system_module("panels").build(num_classes=3, uses_memory=True)
    write_model(shared / "panels", panels.state_dict(), card)
    for name in ("masks", "coco", "coco-panoptic", "kitti-step", "davis"):
        write_tiny_set(name, shared / name)
    write_masks_tree(shared / "drawn", train=4, val=2, size_hw=(48, 64))
    save_file(mobilenet_v2(weights=None).state_dict(), shared / "backbone.safetensors")
    words = ["train", "deeplab_v3_plus", "--data", f"masks:{shared / 'drawn'}", "--out", shared / "run", *TRAINING]
    words += ["--init", shared / "backbone.safetensors"]
    assert run_quietly(*words) == 0


TRAINING = ["--backbone", "mobilenet_v2", "--workers", "0", "--quiet"]
for _setting in ("steps=1", "batch_size=2", "crop_size=32", "input_size=32", "model.channels=8", "evaluate_every=1"):
    TRAINING += ["--set", _setting]


def _of_format(name: str) -> Target:
    def commands(case: Path, rng: random.Random) -> Words:
        spec, out = f"{name}:{case / 'data'}", case / "out"
        if name == "instance-masks" and rng.random() < 0.5:
            spec += "?classes=objects.json"
        way = rng.randrange(6)
        if way < 2:
            return ["data", "check", spec, "--workers", "0"]
        if way == 2:
            fixed = out / ("fixed.json" if name in ("coco", "coco-panoptic", "cityscapes-panoptic") else "fixed")
            return ["data", "check", spec, "--fix", fixed, "--workers", "0"]
        if way == 3:
            other = rng.choice(sorted(writable_formats()))
            return ["data", "convert", spec, f"{other}:{out / 'converted'}", "--workers", "0"]
        if way == 4:
            return ["data", "show", spec, "--out", out / "sheet.png", "--count", "4"]
        return ["data", "stats", spec, "--workers", "0"]

    def build(case: Path) -> None:
        write_tiny_set(name, case / "data")
        if name == "instance-masks":
            table = {
                path.stem: {"1": "crate", "7": {"class": "crate", "crowd": True}} for path in case.rglob("images/*")
            }
            (case / "data" / "objects.json").write_text(json.dumps(table))

    return Target(name, build, commands)


LABEL_FILE = """name = "tiny"
void_ids = [255]
[[class]]
name = "floor"
id = 0
colour = [1, 2, 3]
thing = false
[[class]]
name = "wall"
id = 1
colour = [40, 50, 60]
thing = true
"""
MAP_FILE = """target = "voc"
default = "ignore"
[names]
floor = "background"
wall = "chair"
"""


def _of_labels() -> list[Target]:
    def build(case: Path) -> None:
        data = case / "data"
        masks_set(data, ["a", "b"], labels=None)
        (data / "labels.toml").write_text(LABEL_FILE)
        (data / "map.toml").write_text(MAP_FILE)
        objects = {split: annotation(1, 7, 3, (1, 1, 6, 5)) for split in ("train", "val")}
        for split, one in objects.items():
            coco(data / "coco", [one], split=split)
        entries = [
            {"image_id": "a", "bbox": [1, 1, 3, 4]},
            {"image_id": "a", "segmentation": {"size": [8, 8], "counts": "0P2"}},
        ]
        (data / "coco" / "proposals.json").write_text(json.dumps(entries))
        (data / "coco" / "regions").mkdir()
        superpixels, members = np.arange(64).reshape(8, 8) // 16, np.eye(4, dtype=bool)
        np.savez(data / "coco" / "regions" / "a.npz", superpixels=superpixels, members=members)

    def labels(case: Path, rng: random.Random) -> Words:
        spec = f"masks:{case / 'data'}@train?labels=labels.toml"
        if rng.random() < 0.5:
            return ["data", "stats", spec, "--workers", "0"]
        words = ["data", "convert", spec, f"masks:{case / 'out' / 'set'}", "--map", case / "data" / "map.toml"]
        return [*words, "--workers", "0"]

    def proposals(case: Path, rng: random.Random) -> Words:
        place = rng.choice(["proposals.json", "regions"])
        return ["data", "stats", f"coco:{case / 'data' / 'coco'}@train?proposals={place}", "--workers", "0"]

    return [
        Target("label files", build, labels, spared=("images", "masks", "coco")),
        Target("proposals", build, proposals, spared=("images", "masks", ".toml", "train", "val", "instances")),
    ]


def _pictures(case: Path) -> None:
    """An image of every kind of file that this Pillow writes."""
    folder = case / "data"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm"):
        picture.save(folder / f"{suffix}.{suffix}")
    if features.check("avif"):
        picture.save(folder / "avif.avif")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(folder / "float.tif")
    picture.save(folder / "packed.tif", compression="tiff_lzw")
    picture.save(folder / "frames.gif", save_all=True, append_images=[picture.rotate(90)])


FAMILIES = [
    ["torchvision", "fcn_resnet50"],
    ["torchvision", "resnet18"],
    ["smp", "deeplabv3plus"],
    ["semseg", "pspnet50"],
    ["yolact", "yolact_base"],
    ["upsnet", "upsnet50"],
]


def _of_models(shared: Path) -> list[Target]:
    def predict(case: Path, _: random.Random) -> Words:
        return ["predict", case / "data", "--model", shared / "pointwise", "--out", case / "out"]

    def videos(case: Path) -> None:
        (case / "data").mkdir()
        write_video(case / "data" / "clip.mp4", squares(6))
        write_video(case / "data" / "clip.avi", squares(4), codec="mpeg4")
        write_video(case / "data" / "clip.mkv", squares(4), sound=True)

    def predict_clip(case: Path, rng: random.Random) -> Words:
        clip = rng.choice(["clip.mp4", "clip.avi", "clip.mkv"])
        model = shared / rng.choice(["pointwise", "panels"])
        return ["predict", case / "data" / clip, "--model", model, "--out", case / "out" / "clip.mp4"]

    def model(case: Path) -> None:
        for name in ("pointwise", "panels"):
            shutil.copytree(shared / name, case / "data" / name)
        write_image(case / "photo.png")

    def use_model(case: Path, rng: random.Random) -> Words:
        name = rng.choice(["pointwise", "panels"])
        return ["predict", case / "photo.png", "--model", case / "data" / name, "--out", case / "out"]

    def run_folder(case: Path) -> None:
        shutil.copytree(shared / "run", case / "data" / "run")
        recipe = json.loads((case / "data" / "run" / "recipe.json").read_text())
        recipe["recipe"]["stages"][0]["steps"] = 2  # one more is to be made
        (case / "data" / "run" / "recipe.json").write_text(json.dumps(recipe))

    def go_on(case: Path, rng: random.Random) -> Words:
        if rng.random() < 0.2:
            return ["predict", shared / "photo.png", "--model", case / "data" / "run", "--out", case / "out"]
        return ["train", "--resume", case / "data" / "run", "--workers", "0", "--quiet"]

    def begin(case: Path, rng: random.Random) -> Words:
        init = rng.choice(["run", "run/best", "backbone.safetensors"])
        words = ["train", "deeplab_v3_plus", "--data", f"masks:{shared / 'drawn'}", "--out", case / "out" / "run"]
        return [*words, "--init", case / "data" / init, *TRAINING]

    def first_weights(case: Path) -> None:
        run_folder(case)
        shutil.copy(shared / "backbone.safetensors", case / "data")

    def foreign(case: Path) -> None:
        data = case / "data"
        data.mkdir()
        tensors = {f"backbone.layer{n}.weight": torch.full((3, 3, 1, 1), float(n)) for n in range(3)}
        tensors["classifier.4.bias"] = torch.zeros(21)
        torch.save({"state_dict": tensors, "epoch": 3}, data / "zip.pth")
        torch.save(tensors, data / "old.pth", _use_new_zipfile_serialization=False)
        save_file(tensors, data / "weights.safetensors")
        (data / "shards").mkdir()
        names = list(tensors)
        place = {name: f"model-{number % 2 + 1:05}-of-00002.safetensors" for number, name in enumerate(names)}
        for file in sorted(set(place.values())):
            save_file({name: tensors[name] for name in names if place[name] == file}, data / "shards" / file)
        index = {"metadata": {"total_size": 1}, "weight_map": place}
        (data / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
        (data / "smp").mkdir()
        save_file(tensors, data / "smp" / "model.safetensors")
        config = {"_model_class": "Unet", "encoder_name": "resnet18", "encoder_output_stride": 16, "classes": 21}
        (data / "smp" / "config.json").write_text(json.dumps(config))

    def take(case: Path, rng: random.Random) -> Words:
        file = rng.choice(["zip.pth", "old.pth", "weights.safetensors", "shards", "smp"])
        family = rng.choice(FAMILIES)
        return ["import", *family, case / "data" / file, "--out", case / "out" / "model"]

    write_image(shared / "photo.png")
    return [
        Target("images", _pictures, predict),
        Target("videos", videos, predict_clip),
        Target("model folders", model, use_model),
        Target("run folders", run_folder, go_on),
        Target("initial weights", first_weights, begin),
        Target("foreign weights", foreign, take),
    ]


def _of_results(shared: Path) -> list[Target]:
    def evaluate(data: str, found: str) -> Callable[[Path, random.Random], Words]:
        def commands(case: Path, _: random.Random) -> Words:
            words = ["evaluate", "--predictions", case / "data" / found, "--data", f"{data}:{shared / data}@val"]
            return [*words, "--out", case / "out" / "report", "--workers", "0", "--quiet"]

        return commands

    def objects(case: Path) -> None:
        (case / "data").mkdir()
        truth = json.loads((shared / "coco" / "annotations" / "instances_val.json").read_text())
        names = ("image_id", "category_id", "bbox", "segmentation")
        entries = [{**{name: one[name] for name in names if name in one}, "score": 0.5} for one in truth["annotations"]]
        entries[0]["segmentation"] = {"size": [8, 8], "counts": "0P2"}
        (case / "data" / "coco_results.json").write_text(json.dumps(entries))

    def segments(case: Path) -> None:
        shutil.copytree(
            shared / "coco-panoptic" / "annotations" / "panoptic_val2017", case / "data" / "panoptic_results"
        )
        file = shared / "coco-panoptic" / "annotations" / "panoptic_val2017.json"
        (case / "data" / "panoptic_results.json").write_text(file.read_text())

    def masks(case: Path) -> None:
        shutil.copytree(shared / "masks" / "masks", case / "data" / "found")

    def step(case: Path) -> None:
        shutil.copytree(shared / "kitti-step" / "panoptic_maps" / "val", case / "data" / "found")

    def davis(case: Path) -> None:
        shutil.copytree(shared / "davis" / "Annotations" / "480p", case / "data" / "found")

    def lines(case: Path) -> None:
        (case / "data").mkdir()
        segment = {"id": 4, "label": 1, "area": 24, "box": [0, 0, 6, 4], "score": 0.5, "track_id": 3}
        segment["rle"] = {"size": [4, 6], "counts": "0h0"}
        frames = [{"frame": n, "size": [4, 6], "labels": list(LABELS.names), "segments": [segment]} for n in range(3)]
        (case / "data" / "0003.labelled.jsonl").write_text("".join(f"{json.dumps(frame)}\n" for frame in frames))

    def shards(case: Path) -> None:
        (case / "data").mkdir()
        for number in (1, 2):
            words = ["evaluate", shared / "pointwise", "--data", f"masks:{shared / 'masks'}@train", "--workers", "0"]
            words += [
                "--map",
                shared / "map.toml",
                "--quiet",
                "--shard",
                f"{number}/2",
                "--out",
                case / "data" / f"{number}",
            ]
            assert run_quietly(*words) == 0

    def join(case: Path, _: random.Random) -> Words:
        return ["evaluate", "--merge", case / "data" / "1", case / "data" / "2", "--out", case / "out" / "report"]

    def predicted(case: Path) -> None:
        write_image(case / "photos" / "a.png", seed=1)
        write_image(case / "photos" / "b.png", seed=2)
        for name in ("pointwise", "panels"):
            words = ["predict", case / "photos", "--model", shared / name, "--out", case / "data" / name, "--quiet"]
            assert run_quietly(*words) == 0
        runs = {"size": [4, 6], "counts": "0h0"}
        entry = {"image_id": "a", "category_id": 1, "score": 0.9, "segmentation": runs, "bbox": [0, 0, 2, 2]}
        (case / "data" / "coco_results.json").write_text(json.dumps([entry]))
        (case / "labels.toml").write_text(
            "".join(f'[[class]]\nname = "{name}"\nid = {id}\nthing = {str(id > 0).lower()}\n'
                    for id, name in enumerate(LABELS.names))
        )  # fmt: skip

    def again(case: Path, rng: random.Random) -> Words:
        way = rng.randrange(3)
        if way == 0:
            name = rng.choice(["pointwise", "panels"])
            return ["predict", case / "photos", "--model", shared / name, "--out", case / "data" / name]
        found = case / "data" / ("panels" if way == 1 else "coco_results.json")
        words = ["merge", "--semantic", case / "data" / "pointwise", "--instances", found, "--out", case / "out"]
        return [*words, "--labels", case / "labels.toml"]

    def half_a_clip(case: Path) -> None:
        clip_file = write_video(case / "clip.mp4", squares(12))
        predictor, out = load(shared / "panels", device="cpu"), case / "data" / "clip.mp4"
        (case / "data").mkdir()
        digest = weights_digest(shared / "panels")
        job = VideoJob(predictor, digest, Options(), False, out, out.with_suffix(".jsonl"))
        clip = open_video(clip_file)
        with closing(predict_video(clip, job, look_for_results(clip, job))) as lines:
            for _ in range(5):
                next(lines)

    def finish_clip(case: Path, _: random.Random) -> Words:
        return ["predict", case / "clip.mp4", "--model", shared / "panels", "--out", case / "data" / "clip.mp4"]

    (shared / "map.toml").write_text(MODEL_MAP)
    return [
        Target("objects results", objects, evaluate("coco", "coco_results.json")),
        Target("segments results", segments, evaluate("coco-panoptic", "panoptic_results.json")),
        Target("predicted masks", masks, evaluate("masks", "found")),
        Target("frames of KITTI-STEP", step, evaluate("kitti-step", "found")),
        Target("frames of DAVIS", davis, evaluate("davis", "found")),
        Target("lines of a clip", lines, evaluate("davis", "0003.labelled.jsonl")),
        Target("shards", shards, join),
        Target("results of predict", predicted, again),
        Target("half a clip", half_a_clip, finish_clip),
    ]


MODEL_MAP = """default = "ignore"
[names]
floor = "background"
wall = "apple"
"""
