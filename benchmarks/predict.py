"""Speed of prediction: our networks beside their originals with the same weights, and a folder beside the bare network.

    python benchmarks/predict.py [networks|folder] [--pairs 15] [--size 512] [--threads N]
    python benchmarks/predict.py folder --data ../shared/data/VOCdevkit/VOC2012 [--images 200] [--model default]

`networks`: torchvision's and segmentation_models_pytorch's own networks as their users run them (`eval()`, inference
mode, float32, contiguous, without auxiliary classifier), and ours with the same weights through `Predictor.logits`,
which takes the same image as bytes; both give scores at the image's size. Times are taken in turn, after the scores
were compared.

`folder`: what `pixelwise predict` does with images on the disk (reading, network, overlay, mask, results.jsonl), beside
the same images, read and resized before, through the network alone; and beside the network with the step from its
scores to ids.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torchvision
from results import add_option, report
from torch import Tensor, nn

import pixelwise
from pixelwise.importers import smp as smp_importer
from pixelwise.importers import torchvision as torchvision_importer
from pixelwise.importers.foreign import ImportedModel
from pixelwise.inference.image_input import image_tensor
from pixelwise.inference.images.find import find_image_files
from pixelwise.inference.images.predict import Job, predict_files
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.nn.backbone import Normalize
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.predictions.lines import ResultsFile

CLASSES = 21
TOLERANCE = 1e-3
"""Largest difference of the scores, as a fraction of the largest."""
FOLDER_LIMIT = 1.10


@dataclass(frozen=True)
class Peer:
    """A network of others, and its counterpart here.

    Attributes:
        name: what it is called there.
        build: makes it with random weights.
        convert: its weights under our keys.
        limit: largest time of ours, as a fraction of theirs.
    """

    name: str
    build: Callable[[], nn.Module]
    convert: Callable[[dict[str, Tensor]], ImportedModel]
    limit: float


def torchvision_peer(name: str, *, limit: float = 1.0) -> Peer:
    build = getattr(torchvision.models.segmentation, name)
    return Peer(
        f"torchvision {name}",
        lambda: build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False),
        lambda weights: torchvision_importer.convert(name, weights),
        limit,
    )


def smp_peer(architecture: str, encoder: str) -> Peer:
    return Peer(
        f"smp {architecture} {encoder}",
        lambda: getattr(smp, architecture)(encoder, encoder_weights=None, classes=CLASSES),
        lambda weights: smp_importer.convert(architecture, weights),
        1.0,
    )


PEERS = (
    torchvision_peer("deeplabv3_resnet50", limit=0.75),
    torchvision_peer("deeplabv3_mobilenet_v3_large"),
    torchvision_peer("fcn_resnet50"),
    smp_peer("DeepLabV3Plus", "mobilenet_v2"),
    smp_peer("PSPNet", "resnet50"),
)


def with_lively_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after a training: fresh ones have mean 0 and variance 1, which a wrong folding might survive."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def our_predictor(imported: ImportedModel, size: int) -> Predictor:
    arguments = dict(imported.arguments)
    module = system_module(imported.system).build(num_classes=CLASSES, **arguments)
    missing, unexpected = module.load_state_dict(imported.weights, strict=False)
    if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
        raise SystemExit(f"{imported.system}: weights do not fit: {missing[:3]} {unexpected[:3]}")
    labels = LabelSet.from_names("benchmark", [f"class {number}" for number in range(CLASSES)])
    card = ModelCard("semantic", imported.system, labels, arguments=arguments, resize=ResizeRule(length=size))
    return Predictor(module, card, device="cpu")


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(peer: Peer, *, pairs: int, size: int) -> bool:
    """Print times and differences; whether both limits are kept."""
    torch.manual_seed(0)
    theirs = with_lively_statistics(peer.build())
    ours = our_predictor(peer.convert(theirs.state_dict()), size)
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    normalised = Normalize()(image[None].float() / 255)

    @torch.inference_mode()
    def their_scores() -> Tensor:
        scores = theirs(normalised)
        return (scores["out"] if isinstance(scores, dict) else scores)[0]

    def our_scores() -> Tensor:
        return ours.logits(image, (size, size))

    expected = their_scores()
    difference = float((our_scores() - expected).abs().max() / expected.abs().max())
    times = [(seconds(their_scores), seconds(our_scores)) for _ in range(pairs)]
    ratio = statistics.median(our / their for their, our in times)
    their_median, our_median = (statistics.median(column) for column in zip(*times, strict=True))
    kept = ratio <= peer.limit and difference <= TOLERANCE
    report(
        peer.name,
        f"theirs {their_median * 1e3:,.0f} ms, ours {our_median * 1e3:,.0f} ms, ratio {ratio:.2f} "
        f"(limit {peer.limit:.2f}), scores differ by {difference:.0e}: {'ok' if kept else 'MISSED'}",
    )
    return kept


def folder(data: Path, *, images: int, model: str, workers: int) -> bool:
    """Print the throughput of a folder and of the bare network; whether the limit is kept."""
    paths = sorted((data / "JPEGImages").glob("*.jpg"))[:images]
    predictor = pixelwise.load(model, device="cpu")
    pixels = [image_tensor(path) for path in paths]
    prepared = [predictor.prepare(one) for one in pixels]
    network = predictor.network()

    @torch.inference_mode()
    def bare() -> None:
        for one in prepared:
            network(one)

    def with_ids() -> None:
        for one in pixels:
            predictor.annotate(one)

    def command() -> None:
        with tempfile.TemporaryDirectory() as out, ResultsFile(Path(out)) as results:
            files = find_image_files([str(path) for path in paths], out=Path(out)).files
            job = Job(predictor, "benchmark", Options(), Path(out), 200.0, workers)
            outcomes = list(predict_files(files, job, results))
            failures = [outcome.failure for outcome in outcomes if outcome.failure]
            if failures or len(outcomes) != len(paths):
                raise SystemExit(f"{len(failures)} failures: {failures[:1]}")

    network(prepared[0])
    rounds = [(seconds(bare), seconds(with_ids), seconds(command)) for _ in range(3)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    rates = [len(paths) / median for median in medians]
    ratio = statistics.median(row[2] / row[0] for row in rounds)
    answer_ratio = statistics.median(row[2] / row[1] for row in rounds)
    report(
        f"a folder of {len(paths)} images",
        f"network alone {rates[0]:.1f} images/s, with ids {rates[1]:.1f}, the command "
        f"{rates[2]:.1f}; its time is {ratio:.2f} of the network's (limit {FOLDER_LIMIT:.2f}), {answer_ratio:.2f} of "
        f"the network's with ids: {'ok' if ratio <= FOLDER_LIMIT else 'MISSED'}",
    )
    return ratio <= FOLDER_LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=("networks", "folder", "all"), default="all")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/VOCdevkit/VOC2012"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int)
    add_option(parser)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    kept = []
    if options.part in ("networks", "all"):
        kept += [compare(peer, pairs=options.pairs, size=options.size) for peer in PEERS if options.only in peer.name]
    if options.part in ("folder", "all"):
        kept.append(folder(options.data, images=options.images, model=options.model, workers=options.workers))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
