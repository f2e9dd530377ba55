"""The types of images, annotations and batches.

Ground truth and prediction are the same type. Axis letters: B images, F frames, K classes, N instances, S segments, C
channels, H W pixels, M chosen of N, P pixels of crops. Shapes and dtypes are checked where data enter (readers,
`from_crops`, `from_dense`, `from_coco`), not at every step; tests check every annotation below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64, Shaped, UInt8
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.ops import rle
from pixelwise.ops.panoptic import segment_places
from pixelwise.ops.superpixels import Regions

Moved = TypeVar("Moved", bound="_Movable")


class _Movable:
    """`to` and `pin_memory` for a dataclass whose fields hold tensors, or other movable values, or plain data."""

    __slots__ = ()

    def to(self: Moved, device: torch.device | str) -> Moved:
        """The same value with every tensor on `device`."""
        # an asynchronous copy to the CPU may be read before it is complete
        waits = torch.device(device).type == "cpu"
        return self._moved(lambda tensor: tensor.to(device, non_blocking=not waits))

    def pin_memory(self: Moved) -> Moved:
        """The same value in page-locked memory, for fast copies to a GPU."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self: Moved, move: Callable[[Tensor], Tensor]) -> Moved:
        changes: dict[str, Any] = {}
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = move(value)
            elif isinstance(value, _Movable):
                changes[field.name] = value._moved(move)
            elif isinstance(value, tuple) and value and isinstance(value[0], _Movable):
                changes[field.name] = tuple(item._moved(move) for item in value)
        return replace(self, **changes)  # pyright: ignore[reportArgumentType, reportType]


def _places(which: Shaped[Tensor, " M"] | Sequence[int], length: int, device: torch.device) -> Int64[Tensor, " M2"]:
    """Indices from indices or from one bool for each of `length` things."""
    index = torch.as_tensor(which, device=device)
    if index.dtype != torch.bool:
        return index.long()
    if index.shape != (length,):
        raise DataError(f"a choice of {len(index)} bools among {length}; expected one for each")
    return index.nonzero().flatten()


@dataclass(frozen=True, eq=False, slots=True)
class Masks(_Movable):
    """N binary masks of one image, each stored as the crop of its box: memory follows the boxes' area, never N·H·W.

    Attributes:
        crops: 0 or 1, the crops row by row, one after the other in the order of the masks.
        offsets: where in `crops` each begins.
        boxes: x1 y1 x2 y2 in pixels, x2 y2 exclusive; tight but for `from_crops`. An empty mask has 0 0 0 0.
        size: height and width of the image.
    """

    crops: UInt8[Tensor, " P"]
    offsets: Int64[Tensor, " N"]
    boxes: Int32[Tensor, "N 4"]
    size: tuple[int, int]

    @classmethod
    def from_crops(
        cls, crops: Sequence[Shaped[Tensor, "_h _w"]], boxes: Sequence[Sequence[int]], size: tuple[int, int]
    ) -> Masks:
        """Pack crops that lie in their boxes, tight or not; values other than zero count as one.

        Raises DataError when a crop does not have its box's size, or a box leaves the image.
        """
        height, width = size
        for index, (crop, (x1, y1, x2, y2)) in enumerate(zip(crops, boxes, strict=True)):
            if crop.shape != (y2 - y1, x2 - x1):
                raise DataError(f"mask {index}: a crop of {tuple(crop.shape)} in the box {[x1, y1, x2, y2]}")
            if not (0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height):
                raise DataError(f"mask {index}: the box {[x1, y1, x2, y2]} leaves the image of {height}×{width}")
        areas = torch.tensor([crop.numel() for crop in crops], dtype=torch.int64)
        flat = [(crop != 0).to(torch.uint8).flatten() for crop in crops]
        return cls(
            crops=torch.cat(flat) if flat else torch.zeros(0, dtype=torch.uint8),
            offsets=areas.cumsum(0) - areas,
            boxes=torch.tensor([list(box) for box in boxes], dtype=torch.int32).reshape(-1, 4),
            size=(height, width),
        )

    @classmethod
    def from_arrays(cls, masks: Iterable[np.ndarray], size: tuple[int, int]) -> Masks:
        """Pack masks [H, W] one by one, each cropped to its tight box."""
        crops: list[Tensor] = []
        boxes: list[tuple[int, int, int, int]] = []
        for index, mask in enumerate(masks):
            if mask.shape != tuple(size):
                shape = "×".join(str(side) for side in mask.shape)
                raise DataError(f"mask {index}: {shape} in an image of {size[0]}×{size[1]}")
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = (0, 0, 0, 0)
            if rows.size:
                box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            boxes.append(box)
            crops.append(torch.from_numpy((mask[box[1] : box[3], box[0] : box[2]] != 0).astype(np.uint8)))
        return cls.from_crops(crops, boxes, size)

    @classmethod
    def from_dense(cls, masks: Shaped[Tensor, "N H W"]) -> Masks:
        """Pack a dense stack, each mask cropped to its tight box."""
        if masks.ndim != 3:
            raise DataError(f"dense masks are N×H×W, not {tuple(masks.shape)}")
        return cls.from_arrays((mask.cpu().numpy() for mask in masks), (masks.shape[1], masks.shape[2]))

    @classmethod
    def from_coco(cls, segmentations: Sequence[Any], size: tuple[int, int], *, source: str = "annotation") -> Masks:
        """Read COCO's three forms: polygons, a list of run lengths, and compressed RLE.

        Only the pixels of the boxes are written. Raises DataError, starting with `source` and the number of the
        segmentation, for an RLE of another size or broken runs, and for a polygon under three points.
        """
        crops: list[Tensor] = []
        boxes: list[rle.Box] = []
        for index, segmentation in enumerate(segmentations):
            name = f"{source} {index}"
            if isinstance(segmentation, Mapping):
                crop, box = rle.crop(segmentation, size=size, source=name)
            else:
                crop, box = rle.crop_polygons(segmentation, size, source=name)
            crops.append(torch.from_numpy(crop))
            boxes.append(box)
        return cls.from_crops(crops, boxes, size)

    def to_coco(self) -> list[dict[str, Any]]:
        """Compressed COCO RLE of each mask at the full size, made from its crop alone."""
        return [
            rle.encode_crop(self.crop(index).cpu().numpy(), self.boxes[index].tolist(), self.size)
            for index in range(len(self))
        ]

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def crop(self, index: int) -> UInt8[Tensor, "h w"]:
        """The mask inside its box, a view."""
        x1, y1, x2, y2 = self.boxes[index].tolist()
        start = int(self.offsets[index])
        return self.crops[start : start + (y2 - y1) * (x2 - x1)].view(y2 - y1, x2 - x1)

    def dense_one(self, index: int) -> Bool[Tensor, "H W"]:
        """One mask at the image's size."""
        mask = torch.zeros(self.size, dtype=torch.bool, device=self.crops.device)
        x1, y1, x2, y2 = self.boxes[index].tolist()
        mask[y1:y2, x1:x2] = self.crop(index).bool()
        return mask

    def union(self) -> Bool[Tensor, "H W"]:
        """The pixels of any mask."""
        covered = torch.zeros(self.size, dtype=torch.bool, device=self.crops.device)
        for index, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            covered[y1:y2, x1:x2] |= self.crop(index).bool()
        return covered

    def dense(self) -> Bool[Tensor, "N H W"]:
        """All masks at the image's size: N·H·W bytes, for small images and tests."""
        if not len(self):
            return torch.zeros(0, *self.size, dtype=torch.bool, device=self.crops.device)
        return torch.stack([self.dense_one(index) for index in range(len(self))])

    def __getitem__(self, which: Shaped[Tensor, " M"] | Sequence[int]) -> Masks:
        """The masks of the given indices, or of the true places of a bool tensor, in that order."""
        index = _places(which, len(self), self.boxes.device)
        areas = self._box_areas()[index]
        starts = areas.cumsum(0) - areas
        # position of every pixel of the selection in `crops`: its mask's offset, plus its place inside the mask
        place = torch.arange(int(areas.sum()), device=index.device) - starts.repeat_interleave(areas)
        return Masks(
            crops=self.crops[self.offsets[index].repeat_interleave(areas) + place],
            offsets=starts,
            boxes=self.boxes[index],
            size=self.size,
        )

    @staticmethod
    def concatenate(parts: Sequence[Masks]) -> Masks:
        """Masks of the same image joined in order. Raises DataError for none, or when sizes differ."""
        sizes = {part.size for part in parts}
        if len(sizes) != 1:
            raise DataError(f"masks of images of the sizes {sorted(sizes)} to join; expected one and the same size")
        starts = accumulate((part.crops.numel() for part in parts), initial=0)
        return Masks(
            crops=torch.cat([part.crops for part in parts]),
            offsets=torch.cat([part.offsets + start for part, start in zip(parts, starts, strict=False)]),
            boxes=torch.cat([part.boxes for part in parts]),
            size=parts[0].size,
        )

    def without(self, hidden: Bool[Tensor, "H W"]) -> Masks:
        """Each mask without the pixels of `hidden`, in tight boxes; holds one mask at a time."""
        crops: list[Tensor] = []
        boxes: list[tuple[int, int, int, int]] = []
        for index, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            left = self.crop(index).bool() & ~hidden[y1:y2, x1:x2]
            rows, columns = left.any(dim=1).nonzero().flatten(), left.any(dim=0).nonzero().flatten()
            box = (0, 0, 0, 0)
            if len(rows):
                top, bottom, first, last = (int(edge) for edge in (rows[0], rows[-1], columns[0], columns[-1]))
                left = left[top : bottom + 1, first : last + 1]
                box = (x1 + first, y1 + top, x1 + last + 1, y1 + bottom + 1)
            crops.append(left if len(rows) else left[:0, :0])
            boxes.append(box)
        return Masks.from_crops(crops, boxes, self.size)

    def areas(self) -> Int64[Tensor, " N"]:
        """Pixels that are one, of each mask."""
        if self.crops.device.type == "cpu":  # numpy counts a hundred times as fast as torch sums up
            flat, sizes = self.crops.numpy().view(np.bool_), self._box_areas().tolist()
            counts = [
                np.count_nonzero(flat[start : start + size])
                for start, size in zip(self.offsets.tolist(), sizes, strict=True)
            ]
            return torch.tensor(counts, dtype=torch.int64)
        before = torch.zeros(self.crops.numel() + 1, dtype=torch.int64, device=self.crops.device)
        torch.cumsum(self.crops, 0, out=before[1:])
        return before[self.offsets + self._box_areas()] - before[self.offsets]

    def sample(self, boxes: Float[Tensor, "N 4"], size: tuple[int, int]) -> Float[Tensor, "N h w"]:
        """Crop each mask to a box and resample it: the mask targets of RoI heads, without dense masks.

        Args:
            boxes: one box for each mask, x1 y1 x2 y2 in pixels of the image, need not lie inside it.
            size: height and width of the result.

        Returns:
            values in [0, 1]: sampled bilinearly at each cell's centre, zero outside the mask's box.
        """
        height, width = size
        steps_y = (torch.arange(height, device=boxes.device) + 0.5) / height
        steps_x = (torch.arange(width, device=boxes.device) + 0.5) / width
        # coordinates relative to the crop, in units of pixels with centres at integers
        y = boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * steps_y - 0.5 - self.boxes[:, 1:2]
        x = boxes[:, 0:1] + (boxes[:, 2:3] - boxes[:, 0:1]) * steps_x - 0.5 - self.boxes[:, 0:1]
        heights = (self.boxes[:, 3] - self.boxes[:, 1])[:, None, None]
        widths = (self.boxes[:, 2] - self.boxes[:, 0])[:, None, None]
        y0, x0 = y.floor(), x.floor()
        sampled = torch.zeros(len(self), height, width, dtype=boxes.dtype, device=boxes.device)
        if not self.crops.numel():
            return sampled
        # the four pixels around each cell's centre; those outside the crop count as zero
        for row, weight_y in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
            for column, weight_x in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                yy, xx = row[:, :, None].long(), column[:, None, :].long()
                inside = (yy >= 0) & (yy < heights) & (xx >= 0) & (xx < widths)
                place = torch.where(inside, self.offsets[:, None, None] + yy * widths + xx, 0)
                values = self.crops[place] * inside
                sampled += values * weight_y[:, :, None] * weight_x[:, None, :]
        return sampled

    def _box_areas(self) -> Int64[Tensor, " N"]:
        boxes = self.boxes.long()
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@dataclass(frozen=True, eq=False, slots=True)
class Instances(_Movable):
    """The instances of one image.

    Attributes:
        boxes: x1 y1 x2 y2 in pixels, x2 y2 exclusive.
        labels: class id of each.
        masks: their masks, if there are any.
        scores: in [0, 1], of predictions.
        track_ids: equal for the same instance within a clip.
        crowd: whether the region is a crowd of instances without own masks.
        areas: in square pixels, as a file states them; COCO's small, medium and large go by these.
        boxed: whether the instance has a box alone. Its mask is that box, marked as a crowd; in box AP it counts as an
            instance.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    masks: Masks | None = None
    scores: Float[Tensor, " N"] | None = None
    track_ids: Int64[Tensor, " N"] | None = None
    crowd: Bool[Tensor, " N"] | None = None
    areas: Float[Tensor, " N"] | None = None
    boxed: Bool[Tensor, " N"] | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]

    def __getitem__(self, which: Shaped[Tensor, " M"] | Sequence[int]) -> Instances:
        """The instances of the given indices, or of the true places of a bool tensor, in that order."""
        index = _places(which, len(self), self.labels.device)
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Instances(**{name: part[index] for name, part in parts.items() if part is not None})

    @property
    def crowds(self) -> Bool[Tensor, " N"]:
        """Which are crowds; none where nothing says it."""
        return torch.zeros_like(self.labels, dtype=torch.bool) if self.crowd is None else self.crowd

    def by_score(self) -> Instances:
        """The instances by descending score; equal scores keep their order, and so do instances without scores."""
        if self.scores is None or bool((self.scores.diff() <= 0).all()):  # sorting would copy every mask
            return self
        return self[self.scores.argsort(descending=True, stable=True)]

    @staticmethod
    def concatenate(parts: Sequence[Instances]) -> Instances:
        """Join instances of the same image in order.

        Scores, track ids and areas are dropped where some parts lack them; missing `crowd` and `boxed` are False.
        Raises DataError for none, or when some have masks and others have not.
        """
        if not parts:
            raise DataError("no instances to join")
        masks = [part.masks for part in parts if part.masks is not None]
        if masks and len(masks) < len(parts):
            raise DataError(f"{len(parts) - len(masks)} of {len(parts)} groups of instances to join have no masks")

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        def flags(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            if all(value is None for value in values):
                return None
            each = zip(parts, values, strict=True)
            return torch.cat([part.labels.bool() & False if value is None else value for part, value in each])

        return Instances(
            boxes=torch.cat([part.boxes for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            masks=Masks.concatenate(masks) if masks else None,
            scores=joined("scores"),
            track_ids=joined("track_ids"),
            crowd=flags("crowd"),
            areas=joined("areas"),
            boxed=flags("boxed"),
        )


@dataclass(frozen=True, eq=False, slots=True)
class Panoptic(_Movable):
    """Every pixel in exactly one segment.

    Attributes:
        ids: the segment of each pixel, 0 = void. Within a clip the same id is the same thing.
        segment_ids: the ids that have an entry in the fields below, each once and none 0; some may have no pixel.
        labels: class id of each segment.
        crowd: whether the segment is a crowd.
        scores: in [0, 1], of predictions.
    """

    ids: Int32[Tensor, "H W"]
    segment_ids: Int32[Tensor, " S"]
    labels: Int64[Tensor, " S"]
    crowd: Bool[Tensor, " S"]
    scores: Float[Tensor, " S"] | None = None

    def __len__(self) -> int:
        return self.segment_ids.shape[0]

    def areas(self) -> Int64[Tensor, " S"]:
        """Pixels of each segment."""
        found, counts = self.ids.unique(return_counts=True)
        place = torch.searchsorted(found, self.segment_ids).clamp(max=len(found) - 1)
        return torch.where(found[place] == self.segment_ids, counts[place], 0)

    def to_semantic(self, ignore_id: int) -> UInt8[Tensor, "H W"] | Int32[Tensor, "H W"]:
        """The class of each pixel; `ignore_id` where it is void, or of a segment without entry.

        u8 where `ignore_id` is 255, so that classes are 0-254, else i32.
        """
        dtype = torch.uint8 if ignore_id == 255 else torch.int32
        places = segment_places(self.ids.cpu().numpy(), self.segment_ids.cpu().numpy())
        labels = torch.cat([self.labels.cpu(), torch.tensor([ignore_id])]).to(dtype).numpy()
        return torch.from_numpy(labels.take(places, mode="wrap")).to(self.ids.device)  # -1, no segment, is the last


@dataclass(frozen=True, eq=False, slots=True)
class Annotation(_Movable):
    """Ground truth or prediction of one image; every part is optional.

    Attributes:
        semantic: class id of each pixel (u8; i32 where K > 255), `ignore_id` where ignored.
        confidence: probability of that class, in [0, 1].
        instances: of the image.
        panoptic: the segments.
        saliency: in [0, 1].
        classes: whether each class occurs in the image.
        class_scores: score of each class for the image.
        captions: (text, log-probability) pairs, best first.
        flow: displacement of each pixel to the frame's reference, x and y in pixels; NaN where it is not visible there.
    """

    semantic: UInt8[Tensor, "H W"] | Int32[Tensor, "H W"] | None = None
    confidence: Float[Tensor, "H W"] | None = None
    instances: Instances | None = None
    panoptic: Panoptic | None = None
    saliency: Float[Tensor, "H W"] | None = None
    classes: Bool[Tensor, " K"] | None = None
    class_scores: Float[Tensor, " K"] | None = None
    captions: tuple[tuple[str, float], ...] | None = None
    flow: Float[Tensor, "2 H W"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Sample(_Movable):
    """One image of a data set with its ground truth.

    Attributes:
        image: RGB, 0-255.
        truth: its ground truth, at the size of `image`.
        id: name of the image within its data set, used in errors.
        original_size: height and width on disk, after EXIF rotation.
        clip: the video it belongs to.
        frame: its index in the clip.
        proposals: regions of `image` that another program proposed, where the data have them.
    """

    image: UInt8[Tensor, "3 H W"]
    truth: Annotation
    id: str
    original_size: tuple[int, int]
    clip: str | None = None
    frame: int | None = None
    proposals: Regions | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Batch(_Movable):
    """Samples as input of the network.

    Attributes:
        images: RGB in [0, 1], padded on the right and at the bottom to one size; frames of a clip follow each other.
        valid_sizes: height and width of each image without its padding.
        original_sizes: height and width of the result of `decode`.
        truth: one for each image.
        ids: one for each image.
        clip_index: the clip of the batch of each image.
        frame_index: its index in that clip.
        proposals: those of each sample, on the CPU.
    """

    images: Float[Tensor, "B 3 H W"]
    valid_sizes: Int64[Tensor, "B 2"]
    original_sizes: Int64[Tensor, "B 2"]
    truth: tuple[Annotation, ...]
    ids: tuple[str, ...]
    clip_index: Int64[Tensor, " B"]
    frame_index: Int64[Tensor, " B"]
    proposals: tuple[Regions | None, ...] | None = None

    def __len__(self) -> int:
        return self.images.shape[0]
