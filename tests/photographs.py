"""Real photographs of five shapes."""

import numpy as np
from skimage import data


def photographs() -> dict[str, np.ndarray]:
    """Landscape, portrait, square, very wide and small."""
    return {
        "landscape": data.chelsea(),
        "portrait": np.ascontiguousarray(data.coffee()[:, 100:400]),
        "square": data.astronaut(),
        "very wide": np.ascontiguousarray(data.coffee()[150:230]),
        "small": np.ascontiguousarray(data.astronaut()[20:110, 170:290]),
    }
