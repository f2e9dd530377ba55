"""Turn a run into weights that ship: half precision, evaluated again as they ship, with a card.

    python tools/ship_weights.py RUN NAME --val SPEC [--map MAP] --licence TEXT --notes FILE.md [--input-size N]

RUN is a run folder of `pixelwise train` (its best weights are taken); NAME the folder under src/pixelwise/weights; the
notes say in words where the weights come from, and become the second half of the card.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.cli.evaluation import heading
from pixelwise.data.label_maps import with_labels
from pixelwise.data.spec import open_dataset
from pixelwise.evaluation.evaluate import evaluate, model_predictions
from pixelwise.inference.load import WEIGHTS_FOLDER
from pixelwise.inference.model_folder import WEIGHTS_NAME, ModelCard, read_model, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.choice import new_metric, shown


def judge(folder: Path, val: str, label_map: str | None) -> dict[str, Any]:
    """The metrics of a model folder on a data set, and as `shown` the names of the most important."""
    module, card = read_model(folder)
    dataset = with_labels(open_dataset(val, default_split="val"), card.labels, label_map)
    metric = new_metric(card.task, card.labels)
    for _ in evaluate(model_predictions(Predictor(module, card, device="cpu")), dataset, metric):
        pass
    mapped = f"{dataset.name} mapped by {label_map}" if label_map else dataset.name
    return {**metric.compute(), "data": mapped, "images": len(dataset), "shown": shown(metric.definition)}


def card_text(
    name: str, card: ModelCard, per_class: Mapping[str, Mapping[str, float | None]], columns: Sequence[str], notes: str
) -> str:
    """The card as Markdown.

    Args:
        name: of the weights.
        card: what is known of them.
        per_class: the metrics of each class.
        columns: the most important metrics, the first of which decides.
        notes: Markdown.
    """
    scores, training = card.scores, card.training
    weights = (WEIGHTS_FOLDER / name / WEIGHTS_NAME).read_bytes()
    arguments = ", ".join(f"{key} {value}" for key, value in card.arguments.items() if value is not None)
    of_class = [column for column in columns if column in next(iter(per_class.values()))] or ["iou"]
    rows = "\n".join(
        f"| {label} | {' | '.join(_fraction(values[column]) for column in of_class)} |"
        for label, values in per_class.items()
    )
    first, *others = columns
    further = "\n".join(f"| {heading(column)} | {_fraction(scores[column])} |" for column in others)
    return f"""# {name}

| | |
|---|---|
| system | `{card.system}`, {arguments} |
| task | {card.task}, {len(card.labels)} classes of '{card.labels.name}' |
| input size | {card.resize} |
| {heading(first)} | **{scores[first]:.4f}** on {scores["images"]} images of `{scores["data"]}`, one scale, as shipped |
{further}
| file | {len(weights) / 1e6:.1f} MB, float16 |
| SHA-256 | `{hashlib.sha256(weights).hexdigest()}` |
| revision | {training["revision"]} |
| licence | {card.licence} |

Trained by: `{training["command"]}`, {training["step"]:,} steps.

{notes.strip()}

| class | {" | ".join(heading(column) for column in of_class)} |
|---|{"---|" * len(of_class)}
{rows}
"""


def without_own_folders(command: str) -> str:
    """The command with `runs/NAME` for absolute paths, which mean nothing on another machine."""
    words = shlex.split(command)
    return shlex.join(f"runs/{Path(word).name}" if word.startswith("/") else word for word in words)


def _fraction(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Read the run, write and judge the shipped folder, write its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--val", required=True)
    parser.add_argument("--map", help="as of pixelwise train; the classes of --val are others than the model's")
    parser.add_argument("--input-size", help="as of pixelwise predict; that of the run by default")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--notes", type=Path, required=True)
    options = parser.parse_args()
    folder = WEIGHTS_FOLDER / options.name
    module, card = read_model(options.run / "best")
    training = {
        **card.training,
        "init": Path(str(card.training["init"])).name,
        "command": without_own_folders(str(card.training["command"])),
    }
    resize = card.resize.changed(options.input_size)
    card = replace(card, licence=options.licence, training=training, resize=resize)
    write_model(folder, module.state_dict(), card, half=True)
    metrics = judge(folder, options.val, options.map)
    per_class, columns = metrics.pop("per_class"), metrics.pop("shown")
    card = replace(card, scores=metrics)
    write_model(folder, module.state_dict(), card, half=True)
    text = card_text(options.name, card, per_class, columns, options.notes.read_text(encoding="utf-8"))
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(f"{folder}: {heading(columns[0])} {metrics[columns[0]]:.4f}")


if __name__ == "__main__":
    main()
