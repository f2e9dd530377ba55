"""The README's picture: the overlays that `make demo` wrote, side by side at one height.

python tools/demo_picture.py out/demo docs/images/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

HEIGHT, GAP = 360, 8


def main() -> None:
    """Join the overlays of the folder."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.overlay.png"))]
    resized = [picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT)) for picture in pictures]
    width = sum(picture.width for picture in resized) + GAP * (len(resized) - 1)
    joined = Image.new("RGB", (width, HEIGHT), "white")
    left = 0
    for picture in resized:
        joined.paste(picture, (left, 0))
        left += picture.width + GAP
    target.parent.mkdir(parents=True, exist_ok=True)
    joined.save(target, optimize=True)


if __name__ == "__main__":
    main()
