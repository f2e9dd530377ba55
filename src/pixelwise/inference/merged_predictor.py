"""A semantic and an instance model merged to one panoptic model by the heuristic of `nn.panoptic_merge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pixelwise.contracts import Traits
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.inference.image_input import ImageInput
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import DEFAULTS, Options, Predictor
from pixelwise.labels import LabelSet
from pixelwise.nn.panoptic_merge import SCORE_THRESHOLD, SMALLEST_STUFF, merge_segments
from pixelwise.ops.superpixels import Regions
from pixelwise.types import Annotation

COCO_PIXELS = 480 * 640
"""Number of pixels of an image to which SMALLEST_STUFF belongs; it scales with the image."""


class MergedPredictor(Predictor):
    """Two predictors used as one: each runs on the image at its own input size, then both predictions are merged.

    Classes of the instance model are things, all others of the semantic model are stuff.

    Args:
        semantic: predicts stuff.
        instance: predicts things, on the same device.
        name: of the merged model in results.
        note: see Predictor.

    Raises:
        CheckpointError: one of them is for another task.
    """

    def __init__(self, semantic: Predictor, instance: Predictor, *, name: str, note: str = "") -> None:
        for predictor, task in ((semantic, "semantic"), (instance, "instance")):
            if predictor.card.task != task:
                raise CheckpointError(
                    f"{predictor.name}: a model for {predictor.card.task} segmentation where one for {task} is merged"
                )
        things: Sequence[int] = instance.model.things  # pyright: ignore[reportAssignmentType]
        labels, self._class_ids = joined_labels(semantic.labels, instance.labels, things)
        card = ModelCard(
            task="panoptic",
            system="merged",
            labels=labels,
            resize=max(semantic.card.resize, instance.card.resize, key=lambda rule: rule.length),
        )
        both = nn.ModuleDict({"semantic": semantic.model, "instance": instance.model})
        super().__init__(both, card, device=semantic.device, name=name, note=note)
        self.semantic, self.instance = semantic, instance

    def refresh(self) -> None:
        """See Predictor."""
        self.semantic.refresh()
        self.instance.refresh()

    @property
    def traits(self) -> Traits:
        """No traits of the two models: frames are merged one by one."""
        return Traits()

    def network(self) -> nn.Module:
        """Both models; their faster copies are made if missing."""
        self.semantic.network()
        self.instance.network()
        return self.model

    def logits(
        self, image: ImageInput, size: tuple[int, int] | None = None, *, input_size: int | str | None = None
    ) -> Float[Tensor, "K h w"]:
        """The logits of the semantic model; see Predictor."""
        return self.semantic.logits(image, size, input_size=input_size)

    def require_possible(self, options: Options) -> None:
        """Allow windows and several scales: predictions for the whole image are merged."""
        self.semantic.require_possible(options)
        self.instance.require_possible(options)

    def annotate(
        self, image: UInt8[Tensor, "3 H W"], options: Options = DEFAULTS, *, proposals: Regions | None = None
    ) -> Annotation:
        """See Predictor."""
        if proposals is not None:
            raise RecipeError(f"{self.name} takes no proposals; leave ?proposals= out of the data")
        of_pixels = self.semantic.annotate(image, replace(options, score_threshold=None)).to("cpu")
        instances = self.instance.annotate(image, options).to("cpu").instances
        semantic = of_pixels.semantic
        assert semantic is not None
        assert instances is not None
        if len(self.labels) > self.semantic.labels.ignore_id >= 0:  # which would become a class id
            semantic = semantic.int().masked_fill(semantic == self.semantic.labels.ignore_id, self.labels.ignore_id)
        panoptic = merge_segments(
            semantic,
            replace(instances, labels=self._class_ids[instances.labels]),
            num_classes=len(self.labels),
            things=[index for index, is_thing in enumerate(self.labels.is_thing) if is_thing],
            confidence=of_pixels.confidence,
            score_threshold=SCORE_THRESHOLD if options.score_threshold is None else options.score_threshold,
            smallest_stuff=min(SMALLEST_STUFF, SMALLEST_STUFF * semantic.numel() // COCO_PIXELS),
        )
        return Annotation(panoptic=panoptic)


def joined_labels(semantic: LabelSet, objects: LabelSet, things: Sequence[int]) -> tuple[LabelSet, Tensor]:
    """Join the label sets of two models; also return the new class of each class of the instance model.

    The classes of the semantic set come first; those of things that it lacks follow.

    Args:
        semantic: of the semantic model.
        objects: of the instance model.
        things: its classes that are predicted.
    """
    added = [index for index in things if objects.names[index] not in semantic.names]
    names = (*semantic.names, *(objects.names[index] for index in added))
    found = {objects.names[index] for index in things}
    taken = {*semantic.dataset_ids, *semantic.void_ids}
    dataset_ids = list(semantic.dataset_ids)
    for index in added:
        dataset_id = objects.dataset_ids[index]
        dataset_ids.append(max(taken) + 1 if dataset_id in taken else dataset_id)
        taken.add(dataset_ids[-1])
    labels = LabelSet(
        name=f"{semantic.name}+{objects.name}" if added else semantic.name,
        names=names,
        is_thing=tuple(name in found for name in names),
        palette=(*semantic.palette, *(objects.palette[index] for index in added)),
        dataset_ids=tuple(dataset_ids),
        void_ids=semantic.void_ids,
    )
    return labels, torch.tensor([names.index(name) if name in names else -1 for name in objects.names])
