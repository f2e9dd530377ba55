"""Semantic, instance and panoptic segmentation of images and videos.

`import pixelwise` loads nothing heavy; the names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelwise.errors import PixelwiseError as PixelwiseError
    from pixelwise.inference.load import load as load
    from pixelwise.inference.predictor import Predictor as Predictor
    from pixelwise.inference.scene import Scene as Scene
    from pixelwise.labels import LabelSet as LabelSet

__version__ = "0.1.0"

_HOMES = {
    "load": "pixelwise.inference.load",
    "Predictor": "pixelwise.inference.predictor",
    "Scene": "pixelwise.inference.scene",
    "LabelSet": "pixelwise.labels",
    "PixelwiseError": "pixelwise.errors",
}
__all__ = ["LabelSet", "PixelwiseError", "Predictor", "Scene", "__version__", "load"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelwise' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
