"""Classes and categories of Cityscapes' own evaluation.

Source: evalPixelLevelSemanticLabeling.py and labels.py of the official cityscapesScripts.
"""

from __future__ import annotations

CATEGORIES: dict[str, str] = {
    "road": "flat",
    "sidewalk": "flat",
    "building": "construction",
    "wall": "construction",
    "fence": "construction",
    "pole": "object",
    "traffic light": "object",
    "traffic sign": "object",
    "vegetation": "nature",
    "terrain": "nature",
    "sky": "sky",
    "person": "human",
    "rider": "human",
    "car": "vehicle",
    "truck": "vehicle",
    "bus": "vehicle",
    "train": "vehicle",
    "motorcycle": "vehicle",
    "bicycle": "vehicle",
}
"""The 19 classes that are evaluated, and the category of each."""

INSTANCE_SIZES: dict[str, float] = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Mean area in pixels of the instances of each class that has them."""
