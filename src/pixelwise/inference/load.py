"""Load a trained model by its shipped name or its path."""

from __future__ import annotations

from pathlib import Path

import pixelwise
from pixelwise.errors import CheckpointError
from pixelwise.inference.merged_predictor import MergedPredictor
from pixelwise.inference.model_folder import is_model_folder, model_digest, read_card, read_model
from pixelwise.inference.predictor import Predictor

WEIGHTS_FOLDER = Path(pixelwise.__file__).parent / "weights"
"""Where the models that come with the package lie, a folder each; `default_TASK` is the default of another task."""

MERGED = "default_panoptic"
"""Where no model of this name ships, the semantic and the instance default are merged under it."""


def load(name_or_path: str | Path = "default", *, task: str | None = None, device: str = "auto") -> Predictor:
    """Load a trained model.

    The panoptic default is the merge of the semantic and the instance default if none ships; `note` of the predictor
    says so.

    Args:
        name_or_path: `default` or another shipped name; or the path of a model folder or of a run folder, of which
            `best` is taken, or `last` if there is no best. A shipped name takes precedence over a folder of that name:
            give such a folder as `./default`.
        task: of the default (semantic if not given); a model loaded by its path must have it.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        CheckpointError: an unknown name or path, a model of another task, or damaged files.
        RecipeError: the device does not exist.
    """
    if _is_merged(str(name_or_path), task):
        semantic, instance = load("default", device=device), load("default", task="instance", device=device)
        note = "no panoptic model comes with the package: the semantic and the instance default are merged"
        return MergedPredictor(semantic, instance, name=MERGED, note=note)
    folder = find_model(name_or_path, task=task)
    module, card = read_model(folder)
    name = folder.name if folder.parent == WEIGHTS_FOLDER else str(name_or_path)
    return Predictor(module, card, device=device, name=name)


def find_model(name_or_path: str | Path, *, task: str | None = None) -> Path:
    """The model folder that `load` takes; see there."""
    name = str(name_or_path)
    folder = _shipped_default(task or "semantic") if name == "default" else _named(name)
    found = read_card(folder).task
    if task is not None and found != task:
        raise CheckpointError(f"{name}: a model for {found} segmentation, expected {task}; choose another --model")
    return folder


def weights_digest(name_or_path: str | Path, *, task: str | None = None) -> str:
    """A hexadecimal digest of the weights that `load` takes; see there for errors."""
    if _is_merged(str(name_or_path), task):
        return "+".join(model_digest(_shipped_default(part)) for part in ("semantic", "instance"))
    return model_digest(find_model(name_or_path, task=task))


def shipped_models() -> dict[str, str]:
    """The names of the models that come with the package, each with its task."""
    if not WEIGHTS_FOLDER.is_dir():
        return {}
    folders = sorted(path for path in WEIGHTS_FOLDER.iterdir() if is_model_folder(path))
    return {folder.name: read_card(folder).task for folder in folders}


def _is_merged(name: str, task: str | None) -> bool:
    """Whether this is the panoptic default that is merged from two others."""
    is_asked = name == MERGED or (name == "default" and task == "panoptic")
    if not is_asked or task not in (None, "panoptic"):
        return False
    return not is_model_folder(WEIGHTS_FOLDER / MERGED) and all(
        is_model_folder(WEIGHTS_FOLDER / part) for part in ("default", "default_instance")
    )


def _shipped_default(task: str) -> Path:
    folder = WEIGHTS_FOLDER / ("default" if task == "semantic" else f"default_{task}")
    if not is_model_folder(folder):
        raise CheckpointError(
            f"no model for the task '{task}' comes with the package; {_shipped()}; "
            "give the path of your own with --model"
        )
    return folder


def _named(name: str) -> Path:
    if name in shipped_models():
        return WEIGHTS_FOLDER / name
    path = Path(name)
    for folder in (path, path / "best", path / "last"):
        if is_model_folder(folder):
            return folder
    what = "holds no model" if path.exists() else "no such model"
    raise CheckpointError(
        f"{name}: {what}; {_shipped()}; a path must be a folder with model.safetensors and model.json, "
        "or a run folder with best/ or last/"
    )


def _shipped() -> str:
    names = [f"{name} ({task})" for name, task in shipped_models().items()]
    if _is_merged(MERGED, None):
        names.append(f"{MERGED} (panoptic, of the two)")
    return f"shipped: {', '.join(names)}" if names else "none are shipped"
