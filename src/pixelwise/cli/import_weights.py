"""`pixelwise import`: convert weights of other projects to a model folder or a backbone file."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.options import InputSizeOption, JsonOption
from pixelwise.cli.terminal import print
from pixelwise.errors import CheckpointError, DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.text import read_json, read_lines

if TYPE_CHECKING:
    from pixelwise.importers.foreign import ImportedBackbone, ImportedModel
    from pixelwise.labels import LabelSet


class Family(StrEnum):
    """The project that the weights come from."""

    torchvision = "torchvision"
    semseg = "semseg"
    smp = "smp"
    yolact = "yolact"
    yolact_edge = "yolact_edge"
    detectron2 = "detectron2"
    upsnet = "upsnet"
    timm = "timm"


def import_weights(
    family: Annotated[Family, typer.Argument(help="The project that the weights come from.")],
    architecture: Annotated[
        str, typer.Argument(help="Such as deeplabv3_resnet50, pspnet50, yolact_base, or a backbone such as resnet50.")
    ],
    weights: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file of safetensors or torch.save; for shards their folder or index."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="The model folder to make; of a backbone a folder or a file.")],
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Classes of the logits: voc, ade20k, …, a TOML file, a list of names."),
    ] = None,
    input_size: InputSizeOption = None,
    output_stride: Annotated[
        int | None,
        typer.Option(
            "--output-stride", help="Output stride of smp's DeepLabV3Plus, 16 or 8; its weights do not tell it."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--part", help="Part of the file with the weights, such as ema or teacher; by default detected."),
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the weights, for the model's card.")
    ] = "unknown",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert weights of another project to a model folder, or a classifier's to a backbone for train --init."""
    from pixelwise.importers import detectron2, semseg, smp, torchvision, upsnet, yolact, yolact_edge
    from pixelwise.importers.backbones import convert_backbone
    from pixelwise.importers.fit import fit, model_of
    from pixelwise.importers.weights_file import read_foreign

    if output_stride is not None and family is not Family.smp:
        raise CheckpointError("--output-stride: only with smp")
    if out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
        raise CheckpointError(f"--out {out}: is there already; add --overwrite, or choose another")
    if family is Family.smp and weights.is_dir():
        output_stride = _smp_output_stride(weights, architecture, output_stride)
    foreign = read_foreign(weights, part=part)
    try:
        if family is Family.timm or (family is Family.torchvision and architecture not in torchvision.NETWORKS):
            backbone = fit(partial(convert_backbone, _backbone_name(family, architecture)), foreign)
            _say(_write_backbone(backbone, out=out), backbone, as_json)
            return
        name = f"{family.value} {architecture}"
        convert = {
            Family.torchvision: torchvision.convert,
            Family.semseg: semseg.convert,
            Family.smp: partial(smp.convert, output_stride=output_stride or 16),
            Family.yolact: yolact.convert,
            Family.yolact_edge: yolact_edge.convert,
            Family.detectron2: detectron2.convert,
            Family.upsnet: upsnet.convert,
        }[family]
        model = fit(partial(model_of, partial(convert, architecture), expected=name), foreign)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    report = _write_model(
        model, _labels(labels, model, family), source=weights, name=name, out=out,
        input_size=input_size, licence=licence,
    )  # fmt: skip
    _say(report, model, as_json)


def _write_model(
    model: ImportedModel,
    labels: LabelSet,
    *,
    source: Path,
    name: str,
    out: Path,
    input_size: str | None,
    licence: str,
) -> dict[str, Any]:
    from pixelwise.inference.model_folder import ModelCard, write_model
    from pixelwise.inference.systems import system_module

    system = system_module(model.system)
    network = system.build(num_classes=model.num_classes, **model.arguments)
    network.load_state_dict(model.weights, strict=False)
    resize = model.resize.changed(input_size)
    card = ModelCard(
        task=system.TASK,
        system=model.system,
        labels=labels,
        arguments=model.arguments,
        resize=resize.as_square() if system.TRAITS.stretches_input else resize,
        licence=licence,
        training={"imported": name, "file": source.name},
    )
    write_model(out, network.state_dict(), card)
    return {"model": str(out), "labels": labels.name, "resize": str(card.resize)}


def _backbone_name(family: Family, architecture: str) -> str:
    from pixelwise.importers import torchvision
    from pixelwise.importers.foreign import UnknownNetworkError
    from pixelwise.nn.backbones import TIMM

    if family is Family.timm:
        return TIMM + architecture.removeprefix(TIMM)
    if architecture not in torchvision.BACKBONES:
        raise UnknownNetworkError(
            f"torchvision has no '{architecture}' here; there are the networks {', '.join(torchvision.NETWORKS)} and "
            f"the backbones {', '.join(torchvision.BACKBONES)}"
        )
    return architecture


def _write_backbone(backbone: ImportedBackbone, *, out: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    from pixelwise.training.run.initial_weights import BACKBONE_NAME

    path = out if out.suffix == ".safetensors" else out / BACKBONE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # copies: tensors of a file may be parts of one larger, which safetensors does not write
        whole = {key: tensor.contiguous().clone() for key, tensor in backbone.weights.items()}
        write_file(path, lambda new: save_file(whole, new))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None
    return {"backbone": backbone.name, "file": str(path)}


def _say(report: dict[str, Any], found: ImportedModel | ImportedBackbone, as_json: bool) -> None:
    from pixelwise.errors import count
    from pixelwise.importers.foreign import first_of

    if as_json:
        counts = {"mapped": len(found.weights), "skipped": len(found.skipped), "missing": 0, "unexpected": 0}
        print(json.dumps({**counts, **report, "notes": found.notes}, ensure_ascii=False), whole=True)
        return
    print(f"{len(found.weights)} tensors mapped, 0 missing, 0 unexpected")
    if found.skipped:
        print(f"{count(len(found.skipped), 'tensor')} skipped that are not used: {first_of(found.skipped, 5)}")
    for note in found.notes:
        print(note)
    if "backbone" in report:
        print(f"{report['file']}  for train --backbone {report['backbone']} --init {report['file']}")
    else:
        print(f"images are resized: {report['resize']}")
        print(f"{report['model']}/  model.safetensors, model.json; labels '{report['labels']}'")


def _labels(named: str | None, model: ImportedModel, family: Family) -> LabelSet:
    """The label set of --labels, or the usual one of the family's weights with so many classes."""
    from pixelwise.labels import LabelSet, published, published_names

    count = model.num_classes
    usual = {
        Family.torchvision: {21: "voc", 81: "coco"},
        Family.semseg: {21: "voc", 150: "ade20k", 19: "cityscapes"},
        Family.yolact: {81: "coco", 21: "voc"},
        Family.yolact_edge: {81: "coco"},
        Family.detectron2: {81: "coco"},
        Family.upsnet: {133: "coco_panoptic", 19: "cityscapes"},
    }
    named = named or usual.get(family, {}).get(count)
    if named is None:
        names = ["background", "foreground"] if model.is_sigmoid else [f"class {index}" for index in range(count)]
        return LabelSet.from_names(f"{count} classes", names)
    if named in published_names():
        labels = published(named)
    elif not Path(named).is_file():
        raise DataError(
            f"--labels {named}: no such file; {', '.join(published_names())}, a TOML file or a list of names"
        )
    elif Path(named).suffix == ".toml":
        labels = LabelSet.from_toml(Path(named))
    else:
        names = [line.strip() for line in read_lines(Path(named)) if line.strip()]
        if model.is_sigmoid and len(names) == 1:
            names = ["background", *names]  # class 1 is that of the channel
        labels = LabelSet.from_names(Path(named).stem, names)
    if len(labels) != count:
        raise DataError(f"--labels {named}: {len(labels)} classes, but the weights have logits for {count}")
    return labels


def _smp_output_stride(folder: Path, architecture: str, output_stride: int | None) -> int | None:
    """The output stride of --output-stride, or in the config.json of smp's `save_pretrained`."""
    path = folder / "config.json"
    expected = "what smp's save_pretrained writes"
    config = read_json(path, expected=expected, error=CheckpointError)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: a {type(config).__name__}; expected {expected}")
    stored = str(config.get("_model_class", architecture))
    if stored.lower() != architecture.lower():
        raise CheckpointError(f"{path}: says {stored}, not {architecture}")
    found = config.get("encoder_output_stride")
    return output_stride or (found if isinstance(found, int) else None)
