"""From files to annotations: torchvision's transforms and networks, and what import and predict make of the same."""

from __future__ import annotations
