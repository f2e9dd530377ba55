"""Superpixels, and regions that are sets of them: a class-agnostic generator of proposals, overlaps, projection.

A region is a row of bools, one for each superpixel, as MCG stores its proposals and SDS takes them. The generator
merges neighbouring superpixels by their similarity (Uijlings, van de Sande, Gevers, Smeulders, "Selective Search for
Object Recognition", IJCV 2013, section 3); superpixels are those of Felzenszwalb and Huttenlocher (IJCV 2004), by
scikit-image.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from torch import Tensor

from pixelwise.ops.resize import long_side_size, resize_image

COLOUR_BINS = 25
TEXTURE_DIRECTIONS = 8
TEXTURE_BINS = 10

STRATEGIES: tuple[tuple[str, str], ...] = (("lab", "ctsf"), ("hsv", "ctsf"), ("lab", "tsf"), ("hsv", "tsf"))
"""Colour space, and what is compared: colour, texture, size, fill; the `fast` mode of selective search."""


class Regions(NamedTuple):
    """Proposals of one image.

    Attributes:
        superpixels: the superpixel of each pixel, 0 to S - 1.
        members: the superpixels of each region.
    """

    superpixels: Int32[Tensor, "H W"]
    members: Bool[Tensor, "R S"]

    def areas(self) -> Int64[Tensor, " S"]:
        """Pixels of each superpixel."""
        return torch.bincount(self.superpixels.flatten().long(), minlength=self.members.shape[1])

    def boxes(self) -> Float[Tensor, "R 4"]:
        """The tight box of each region, x1 y1 x2 y2 with x2 y2 exclusive; 0 0 0 0 of one without pixels."""
        boxes = superpixel_boxes(self.superpixels, self.members.shape[1])
        far = boxes.new_tensor(1e9)
        lows = torch.where(self.members[:, :, None], boxes[None, :, :2], far).amin(dim=1)
        highs = torch.where(self.members[:, :, None], boxes[None, :, 2:], -far).amax(dim=1)
        found = torch.cat([lows, highs], dim=1)
        return torch.where((lows >= highs).any(dim=1, keepdim=True), 0.0, found)

    def mask(self, index: int) -> Bool[Tensor, "H W"]:
        """The pixels of one region."""
        return self.members[index][self.superpixels.long()]

    def resized(self, size: tuple[int, int]) -> Regions:
        """The same regions over an image of another size; superpixels are sampled at the centres of its pixels."""
        height, width = self.superpixels.shape
        if (height, width) == tuple(size):
            return self
        rows = ((torch.arange(size[0]) + 0.5) * height / size[0]).long().clamp(max=height - 1)
        columns = ((torch.arange(size[1]) + 0.5) * width / size[1]).long().clamp(max=width - 1)
        return self._replace(superpixels=self.superpixels[rows][:, columns])


def superpixels_of(
    image: UInt8[Tensor, "3 H W"], *, scale: float = 100.0, sigma: float = 0.8, smallest: int = 50
) -> Int32[Tensor, "H W"]:
    """Segment an image by Felzenszwalb and Huttenlocher's graph, numbered from 0.

    Args:
        image: RGB.
        scale: larger gives larger superpixels.
        sigma: of the Gaussian filter before it, in pixels.
        smallest: smallest area of a superpixel, in pixels.
    """
    from skimage.segmentation import felzenszwalb

    array = image.permute(1, 2, 0).cpu().numpy()
    ids = felzenszwalb(array, scale=scale, sigma=sigma, min_size=smallest)
    return torch.from_numpy(_renumbered(ids))


def propose_regions(
    image: UInt8[Tensor, "3 H W"],
    *,
    superpixels: Int32[Tensor, "H W"] | None = None,
    count: int = 2000,
    strategies: Sequence[tuple[str, str]] = STRATEGIES,
    seed: int = 0,
) -> Regions:
    """All regions that arise when the two most similar neighbours are merged repeatedly.

    The same region of several strategies is listed once. The order is selective search's: a region's rank from the
    whole image down, times a random number in [0, 1].

    Args:
        image: RGB.
        superpixels: to start from; `superpixels_of` the image if not given.
        count: largest number of regions.
        strategies: colour spaces and measures, see STRATEGIES.
        seed: of the order.
    """
    superpixels = superpixels_of(image) if superpixels is None else superpixels
    ids = superpixels.numpy()
    total = int(ids.max()) + 1
    generator = np.random.default_rng(seed)
    neighbours = _neighbours(ids)
    ranks: dict[bytes, float] = {}
    texture = _texture_histograms(image, ids, total)
    for space, measures in strategies:
        merged = _merge(ids, total, neighbours, _colour_histograms(image, ids, total, space), texture, measures)
        for rank, region in enumerate(reversed(merged), start=1):
            key = np.packbits(region).tobytes()
            ranks[key] = min(ranks.get(key, np.inf), rank * generator.random())
    chosen = sorted(ranks, key=ranks.__getitem__)[:count]
    packed = np.frombuffer(b"".join(chosen), dtype=np.uint8).reshape(len(chosen), -1)
    members = np.unpackbits(packed, axis=1, count=total).astype(bool)
    return Regions(superpixels, torch.from_numpy(members))


def propose_at(
    image: UInt8[Tensor, "3 H W"], *, side: int, count: int, strategies: Sequence[tuple[str, str]] = STRATEGIES
) -> Regions:
    """The proposals of an image that is reduced to at most `side` pixels along its longest side.

    Args:
        image: RGB.
        side: in pixels.
        count: largest number of regions.
        strategies: colour spaces and measures, see STRATEGIES.

    Returns:
        regions over the small image.
    """
    size = (image.shape[1], image.shape[2])
    small = resize_image(image, long_side_size(size, min(side, max(size))))
    # the published 50 pixels belong to images of about 500 pixels
    superpixels = superpixels_of(small, smallest=max(10, round(50 * (max(small.shape[1:]) / 500) ** 2)))
    return propose_regions(small, superpixels=superpixels, count=count, strategies=strategies)


def as_stored(image: Float[Tensor, "3 H W"], size: Sequence[int]) -> UInt8[Tensor, "3 h w"]:
    """An image in [0, 1] cropped to a height and a width, as u8 on the CPU."""
    valid = image[:, : size[0], : size[1]].detach().cpu()
    return (valid * 255).round().clamp(0, 255).to(torch.uint8).contiguous()


def regions_of_masks(
    masks: Iterable[Bool[Tensor, "H W"]],
    size: tuple[int, int],
    *,
    within: Regions | None = None,
) -> Regions:
    """Regions of any shape: superpixels are split along their borders until each region is a set of them.

    Masks are consumed one by one; the regions of `within` do not change.

    Args:
        masks: the new regions, appended in their order.
        size: height and width of the image.
        within: superpixels and regions so far; one superpixel and no region if not given.
    """
    if within is None:
        within = Regions(torch.zeros(size, dtype=torch.int32), torch.zeros(0, 1, dtype=torch.bool))
    ids, members = within.superpixels.numpy().astype(np.int64), within.members.numpy()
    for mask in masks:
        inside = mask.cpu().numpy().astype(bool)
        codes, places = np.unique(2 * ids.ravel() + inside.ravel(), return_inverse=True)
        ids = places.reshape(ids.shape)
        parents, is_inside = codes // 2, codes % 2 == 1
        members = np.concatenate([members[:, parents], is_inside[None]])
    return Regions(torch.from_numpy(ids.astype(np.int32)), torch.from_numpy(np.ascontiguousarray(members)))


def region_overlaps(
    members: Bool[Tensor, "R S"], others: Bool[Tensor, "N S"], areas: Int64[Tensor, " S"]
) -> Float[Tensor, "R N"]:
    """Intersection over union of regions over the same superpixels; 0 where neither has pixels."""
    weights = areas.double()
    shared = (members.double() * weights) @ others.double().T
    union = (members.double() @ weights)[:, None] + (others.double() @ weights)[None, :] - shared
    return (shared / union.clamp(min=1)).float()


def suppress_shared(members: Bool[Tensor, "R S"], scores: Float[Tensor, " R"]) -> Int64[Tensor, " N"]:
    """The regions that share no superpixel with a remaining one of a higher score, highest score first.

    SDS's non-maximum suppression for regions: any overlap suppresses.
    """
    taken = torch.zeros(members.shape[1], dtype=torch.bool, device=members.device)
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if not bool((members[index] & taken).any()):
            kept.append(index)
            taken |= members[index]
    return torch.tensor(kept, dtype=torch.int64, device=members.device)


def mean_in_superpixels(
    values: Float[Tensor, "H W"], superpixels: Int32[Tensor, "H W"], count: int
) -> Float[Tensor, " S"]:
    """The mean of a map over each superpixel, 0 for one without pixels."""
    places = superpixels.flatten().long()
    sums = torch.zeros(count, dtype=torch.float64, device=values.device)
    sums.index_add_(0, places, values.flatten().double())
    return (sums / torch.bincount(places, minlength=count).clamp(min=1)).to(values.dtype)


def superpixel_boxes(superpixels: Int32[Tensor, "H W"], count: int) -> Float[Tensor, "S 4"]:
    """The tight box of each superpixel; an inverted one without pixels."""
    height, width = superpixels.shape
    places = superpixels.flatten().long()
    y = torch.arange(height).repeat_interleave(width)
    x = torch.arange(width).repeat(height)
    lows, highs = [], []
    for along, length in ((x, width), (y, height)):
        lows.append(torch.full((count,), length).scatter_reduce(0, places, along, "amin"))
        highs.append(torch.zeros(count, dtype=torch.int64).scatter_reduce(0, places, along + 1, "amax"))
    return torch.stack([*lows, *highs], dim=1).float()


def _renumbered(ids: np.ndarray) -> np.ndarray:
    return np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.int32)


def _neighbours(ids: np.ndarray) -> list[set[int]]:
    """The superpixels that touch each one at an edge of a pixel."""
    neighbours: list[set[int]] = [set() for _ in range(int(ids.max()) + 1)]
    for one, other in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        pairs = np.unique(np.stack([one.ravel(), other.ravel()], axis=1)[(one != other).ravel()], axis=0)
        for a, b in pairs.tolist():
            neighbours[a].add(b)
            neighbours[b].add(a)
    return neighbours


def _histograms(levels: Sequence[np.ndarray], ids: np.ndarray, total: int, bins: int) -> np.ndarray:
    """For each superpixel the counts of the levels (integers below `bins`) of each map, their sum made 1."""
    flat = ids.ravel()
    counts = [np.bincount(flat * bins + level.ravel(), minlength=total * bins).reshape(total, bins) for level in levels]
    joined = np.concatenate(counts, axis=1).astype(np.float64)
    return joined / np.maximum(joined.sum(axis=1, keepdims=True), 1)


def _colour_histograms(image: UInt8[Tensor, "3 H W"], ids: np.ndarray, total: int, space: str) -> np.ndarray:
    from skimage.color import rgb2hsv, rgb2lab

    array = image.permute(1, 2, 0).cpu().numpy()
    if space == "lab":
        low, high = np.array((0.0, -100.0, -100.0)), np.array((100.0, 100.0, 100.0))
        channels = (rgb2lab(array) - low) / (high - low)
    else:
        channels = rgb2hsv(array)
    levels = np.clip((channels * COLOUR_BINS).astype(np.int64), 0, COLOUR_BINS - 1)
    return _histograms([levels[..., channel] for channel in range(3)], ids, total, COLOUR_BINS)


def _texture_histograms(image: UInt8[Tensor, "3 H W"], ids: np.ndarray, total: int) -> np.ndarray:
    """Gaussian derivatives in eight directions for each channel."""
    from skimage.filters import gaussian

    array = gaussian(image.permute(1, 2, 0).cpu().numpy() / 255.0, sigma=1, channel_axis=2)
    if min(array.shape[:2]) < 2:
        return np.ones((total, 1))
    down, right = np.gradient(array, axis=(0, 1))
    levels: list[np.ndarray] = []
    for direction in range(TEXTURE_DIRECTIONS):
        angle = 2 * np.pi * direction / TEXTURE_DIRECTIONS
        slope = np.cos(angle) * right + np.sin(angle) * down
        level = np.clip((slope * 4 * TEXTURE_BINS).astype(np.int64), 0, TEXTURE_BINS - 1)  # steps beyond 1/4 are rare
        levels += [level[..., channel] for channel in range(3)]
    return _histograms(levels, ids, total, TEXTURE_BINS)


def _merge(
    ids: np.ndarray,
    total: int,
    neighbours: list[set[int]],
    colour: np.ndarray,
    texture: np.ndarray,
    measures: str,
) -> list[np.ndarray]:
    """The superpixels and every merged region, in the order of merging, as rows of bools."""
    pixels = float(ids.size)
    sizes = [float(size) for size in np.bincount(ids.ravel(), minlength=total)]
    boxes = superpixel_boxes(torch.from_numpy(ids), total).tolist()
    rows = [*np.eye(total, dtype=bool)]
    features = [np.concatenate(pair) for pair in zip(colour, texture, strict=True)]
    colours = colour.shape[1]
    around = [set(one) for one in neighbours]
    alive = set(range(total))

    def similarity(a: int, b: int) -> float:
        shared = np.minimum(features[a], features[b])
        result = 0.0
        if "c" in measures:
            result += shared[:colours].sum()
        if "t" in measures:
            result += shared[colours:].sum()
        if "s" in measures:
            result += 1 - (sizes[a] + sizes[b]) / pixels
        if "f" in measures:
            (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes[a], boxes[b]
            hull = (max(ax2, bx2) - min(ax1, bx1)) * (max(ay2, by2) - min(ay1, by1))
            result += 1 - (hull - sizes[a] - sizes[b]) / pixels
        return float(result)

    queue = [(-similarity(a, b), a, b) for a in range(total) for b in around[a] if a < b]
    heapq.heapify(queue)
    while queue:
        _, a, b = heapq.heappop(queue)
        if a not in alive or b not in alive:
            continue
        new = len(rows)
        alive -= {a, b}
        alive.add(new)
        rows.append(rows[a] | rows[b])
        sizes.append(sizes[a] + sizes[b])
        features.append((sizes[a] * features[a] + sizes[b] * features[b]) / sizes[new])
        (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes[a], boxes[b]
        boxes.append([min(ax1, bx1), min(ay1, by1), max(ax2, bx2), max(ay2, by2)])
        around.append((around[a] | around[b]) - {a, b})
        for other in around[new]:
            around[other] -= {a, b}
            around[other].add(new)
            heapq.heappush(queue, (-similarity(other, new), other, new))
    return rows
