"""The solvers of SDS: SVMs and regressors, which are solved exactly on the features of regions.

Source: Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014: linear SVMs with
hard negatives (section 3.3), the regressors of the refinement (section 3.4), the threshold of the pasting (section 5).
The numbers are those of the authors' code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from pixelwise.contracts import SolverProgress, Thresholds
from pixelwise.losses.detection import training_instances
from pixelwise.nn.linear_svms import MinedSVM, fit_logistic
from pixelwise.nn.stored_features import StoredFeatures, StoredImage
from pixelwise.ops.boxes import pairwise_iou
from pixelwise.ops.region_refinement import CELLS, coarse_mask, padded_box, superpixel_means
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.semantic_pasting import best_of_regions, raised_threshold
from pixelwise.ops.superpixels import Regions, region_overlaps, regions_of_masks
from pixelwise.ops.thing_channels import channels_of
from pixelwise.types import Sample

FEATURE_NORM = 20.0
"""Mean norm to which features are scaled before the SVMs."""
NEGATIVE_IOU = {"regions": 0.2, "boxes": 0.3}
"""A class's negatives overlap each of its instances by less; the IoU is that of regions or of boxes."""
LATENT_IOU = 0.5
"""In the latent pass, smallest IoU of a candidate with the instance whose positive it may become."""
REFINEMENT_IOU = 0.7
"""Smallest IoU with an instance of a candidate on which the regressors are trained."""
LEAST_COARSE = 0.2
"""Superpixels outside the region with a lower mean in the coarse map are not trained on."""
LEAST_AREA = 100 / 500**2
"""Nor are smaller ones, as a fraction of the squared long side of the image; 100 pixels in VOC's images."""

Detects = Literal["regions", "boxes"]
"""What the SVMs classify and NMS compares: regions, or their boxes."""


@runtime_checkable
class AnnotatedImages(Protocol):
    """Images with their ground truth."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class RegionSystem(Protocol):
    """A system whose features the solvers use, and whose buffers they set.

    Attributes:
        things: class ids of the things, ascending; the buffers have a row for each.
        detects: see Detects.
        thresholds: of what is predicted.
        normalize: normalises an image for the towers.
        svm_weight: of the SVMs.
        svm_bias: of the SVMs.
        has_svms: whether there is an SVM of the class.
        feature_scale: factor on the features before the SVMs.
        cell_weight: of the regressors of the coarse map; the last column is the intercept.
        superpixel_weight: of the regressor of superpixels: mean in the coarse map, membership, intercept.
        has_refiner: whether there are regressors of the class.
        paste_threshold: margin above which regions are pasted.
    """

    things: tuple[int, ...]
    detects: Detects
    thresholds: Thresholds
    normalize: nn.Module
    svm_weight: Tensor
    svm_bias: Tensor
    has_svms: Tensor
    feature_scale: Tensor
    cell_weight: Tensor
    superpixel_weight: Tensor
    has_refiner: Tensor
    paste_threshold: Tensor

    def eval(self) -> Any:
        """Of any module."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of any module."""
        ...

    def propose(self, picture: UInt8[Tensor, "3 h w"]) -> Regions:
        """Proposals of an image that has none."""
        ...

    def region_features(self, image: Float[Tensor, "1 3 h w"], regions: Regions) -> Float[Tensor, "R D"]:
        """The features of each region of a normalised image."""
        ...

    def margins(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R T"]:
        """Of the SVMs."""
        ...

    def survivors(self, regions: Regions, usable: Int64[Tensor, " U"], scores: Float[Tensor, " U"]) -> Tensor:
        """Indices of the regions that survive NMS within one class, highest score first."""
        ...


class Described(NamedTuple):
    """One training image for the solvers.

    Attributes:
        image: normalised.
        regions: proposals, then the instances in order.
        objects: channels of the instances.
        overlaps: IoU of each region with each instance.
    """

    image: Float[Tensor, "1 3 h w"]
    regions: Regions
    objects: Int64[Tensor, " T"]
    overlaps: Float[Tensor, "R T"]


def fit_svms(system: RegionSystem, samples: AnnotatedImages, *, resize: ResizeRule) -> Iterator[SolverProgress]:
    """Fit one linear SVM for each class on the joined features, with hard negatives and one latent pass.

    Positives are the instances' own regions. After a first round over the images each is replaced by the candidate of
    the largest margin that overlaps it by more than LATENT_IOU, and a second round follows. The box detector has one
    round. At the end the threshold is fitted above which regions are pasted.

    Args:
        system: its buffers are set.
        samples: images with instance masks; proposals are computed for those that have none.
        resize: to which size images are brought.

    Raises:
        DataError: an image has no instance masks, or memory for the features is missing.
    """
    count = len(samples)
    rounds = 1 if system.detects == "boxes" else 2
    total = (rounds + 2) * count
    machines = [MinedSVM() for _ in system.things]
    lengths: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pixelwise_features_") as folder:
        stored = StoredFeatures(Path(folder))
        for index in range(count):
            found = describe(system, samples[index], resize=resize)
            features = _features(system, found.image, found.regions)
            if system.detects == "boxes":
                boxes = found.regions.boxes()
                found = found._replace(overlaps=pairwise_iou(boxes, boxes[len(boxes) - len(found.objects) :]))
            stored.write(index, features, found.regions, objects=found.objects, overlaps=found.overlaps)
            lengths += features.norm(dim=1).tolist()
            yield SolverProgress("fit_svms", index + 1, total)
        scale = FEATURE_NORM / max(float(np.mean(lengths)) if lengths else 1.0, 1e-12)
        system.feature_scale.fill_(scale)
        for round_number in range(1, rounds + 1):
            _set_positives(machines, stored, count, scale=scale, is_latent=round_number > 1)
            for index in range(count):
                _mine_negatives(machines, stored, index, scale=scale, negative_iou=NEGATIVE_IOU[system.detects])
                yield SolverProgress("fit_svms", round_number * count + index + 1, total)
            for machine in machines:
                machine.fit()
        for thing, machine in enumerate(machines):
            if machine.weight is not None:
                system.svm_weight[thing] = torch.from_numpy(machine.weight).to(system.svm_weight)
                system.svm_bias[thing] = machine.bias
                system.has_svms[thing] = True
        candidates: list[Tensor] = []
        for index in range(count):
            candidates.append(_pastable(system, stored.read(index), stored.read_regions(index)))
            yield SolverProgress("fit_svms", (rounds + 1) * count + index + 1, total)
    if system.has_svms.any():
        system.paste_threshold.fill_(raised_threshold(candidates))


def _set_positives(
    machines: Sequence[MinedSVM], stored: StoredFeatures, count: int, *, scale: float, is_latent: bool
) -> None:
    """Set each SVM's positives: the regions of its class's instances, or their candidates of the largest margin."""
    positives: list[list[np.ndarray]] = [[] for _ in machines]
    for index in range(count):
        image = stored.read(index)
        features, first = image.features * np.float32(scale), len(image.features) - len(image.objects)
        for one, channel in enumerate(image.objects.tolist()):
            chosen = first + one
            if is_latent:
                near = np.flatnonzero(image.overlaps[:first, one] > LATENT_IOU)
                if len(near):
                    chosen = int(near[machines[channel - 1].margins(features[near]).argmax()])
            positives[channel - 1].append(features[chosen].copy())  # a copy, so that the others can be freed
    for machine, rows in zip(machines, positives, strict=True):
        machine.positives = rows
        if is_latent:
            machine.fit()


def _mine_negatives(
    machines: Sequence[MinedSVM], stored: StoredFeatures, index: int, *, scale: float, negative_iou: float
) -> None:
    image = stored.read(index)
    features, first = image.features * np.float32(scale), len(image.features) - len(image.objects)
    for thing, machine in enumerate(machines):
        if machine.positives:
            is_own = image.objects == thing + 1
            is_far = image.overlaps[:first, is_own].max(axis=1, initial=0) < negative_iou
            # instances of other classes are negatives, whatever their IoU
            machine.mine(index, features, np.flatnonzero(np.concatenate([is_far, ~is_own])).tolist())


@torch.no_grad()
def _pastable(system: RegionSystem, image: StoredImage, regions: Regions) -> Float[Tensor, " C"]:
    """The margins of the proposals that could be pasted; ground truth regions do not count."""
    proposals = torch.from_numpy(image.features[: len(image.features) - len(image.objects)])
    margins = system.margins(proposals.to(system.svm_weight.device)).cpu()
    scores: list[Tensor] = []
    numbers: list[Tensor] = []
    for thing in system.has_svms.nonzero().flatten().tolist():
        # predicted regions alone, as in prediction
        usable = (margins[:, thing].sigmoid() >= system.thresholds.score).nonzero().flatten()
        kept = usable[system.survivors(regions, usable, margins[usable, thing])]
        scores.append(margins[kept, thing])
        numbers.append(kept)
    if not scores:
        return torch.zeros(0)
    every = torch.cat(scores)
    return every[best_of_regions(every, torch.cat(numbers))]


def fit_refiners(system: RegionSystem, samples: AnnotatedImages, *, resize: ResizeRule) -> Iterator[SolverProgress]:
    """Fit the regressors of each class: the instance's place in the box, then its superpixels.

    They are trained on the candidates that overlap an instance of the class by REFINEMENT_IOU, each with the instance
    that it overlaps most; a class without candidates gets no regressors.

    Args:
        system: has SVMs; its buffers are set.
        samples: images with instance masks; proposals are computed for those that have none.
        resize: to which size images are brought.

    Raises:
        DataError: an image has no instance masks.
    """
    things = len(system.things)
    total = len(samples) + 2 * things
    rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(things)]
    places: list[list[tuple[Regions, int, Tensor]]] = [[] for _ in range(things)]
    for index in range(len(samples)):
        found = describe(system, samples[index], resize=resize)
        first = len(found.regions.members) - len(found.objects)
        for thing in sorted({int(channel) - 1 for channel in found.objects}):
            mine = (found.objects == thing + 1).nonzero().flatten()
            best, owner = found.overlaps[:first, mine].max(dim=1)
            near = (best >= REFINEMENT_IOU).nonzero().flatten()
            regions = found.regions._replace(members=found.regions.members[near])
            truths = found.regions._replace(members=found.regions.members[first + mine[owner[near]]])
            features = _features(system, found.image, regions) * float(system.feature_scale)
            boxes = regions.boxes()
            for one in range(len(near)):
                box = padded_box(boxes[one])
                x = torch.cat([features[one], coarse_mask(regions, one, box), torch.ones(1)])
                rows[thing].append((x, coarse_mask(truths, one, box)))
                places[thing].append((regions, one, truths.members[one]))
        yield SolverProgress("fit_refiners", index + 1, total)
    for thing in range(things):
        if rows[thing]:
            x = torch.stack([row for row, _ in rows[thing]]).double()
            y = torch.stack([target for _, target in rows[thing]]).double()
            weight = fit_logistic(x, y)
            system.cell_weight[thing] = weight.to(system.cell_weight)
            inputs: list[Tensor] = []
            targets: list[Tensor] = []
            for (regions, one, truth), row in zip(places[thing], x, strict=True):
                coarse = (weight @ row).sigmoid().view(CELLS, CELLS).float()
                means, _ = superpixel_means(coarse, padded_box(regions.boxes()[one]), regions)
                members = regions.members[one]
                is_large = regions.areas() > LEAST_AREA * max(regions.superpixels.shape) ** 2
                teaches = is_large & (members | (means > LEAST_COARSE))
                z = torch.stack([means, members.float(), torch.ones_like(means)], dim=1)
                inputs.append(z[teaches])
                targets.append(truth[teaches].float())
            solved = fit_logistic(torch.cat(inputs).double(), torch.cat(targets).double()[:, None])
            system.superpixel_weight[thing] = solved[0].to(system.superpixel_weight)
            system.has_refiner[thing] = True
        yield SolverProgress("fit_refiners", len(samples) + 2 * (thing + 1), total)


@torch.no_grad()
def describe(system: RegionSystem, sample: Sample, *, resize: ResizeRule) -> Described:
    """The regions of a training image, and their IoU with its instances."""
    (truth,) = training_instances([sample.truth])
    objects = truth if truth.crowd is None else truth[~truth.crowd]
    whole_size = (sample.image.shape[1], sample.image.shape[2])
    size = resize.size_of(whole_size)
    picture = resize.resized(sample.image)
    system.eval()
    regions = (system.propose(picture) if sample.proposals is None else sample.proposals).resized(size)
    whole = torch.tensor([[0.0, 0.0, sample.image.shape[2], sample.image.shape[1]]]).expand(len(objects), 4)
    assert objects.masks is not None
    dense = (objects.masks[[index]].sample(whole[:1], size)[0] >= 0.5 for index in range(len(objects)))
    regions = regions_of_masks(dense, size, within=regions)
    parameter = next(system.parameters())
    members = regions.members[len(regions.members) - len(objects) :]
    return Described(
        image=system.normalize(picture.to(parameter.device).to(parameter.dtype).div(255)[None]),
        regions=regions,
        objects=channels_of(objects.labels, system.things),
        overlaps=region_overlaps(regions.members, members, regions.areas()),
    )


@torch.no_grad()
def _features(system: RegionSystem, image: Float[Tensor, "1 3 h w"], regions: Regions) -> Float[Tensor, "R D"]:
    return system.region_features(image, regions).cpu()
