"""Turn a run into weights that ship: half precision, judged again as they ship, with a card.

    python tools/ship_weights.py RUN NAME --val SPEC --licence TEXT --notes FILE.md [--input-size N]

RUN is a run folder of `pixelwise train` (its best weights are taken); NAME the folder under src/pixelwise/weights; the
notes say in words where the weights come from, and become the second half of the card.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from pixelwise.data.spec import open_dataset
from pixelwise.inference.load import WEIGHTS_FOLDER
from pixelwise.inference.model_folder import ModelCard, read_model, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.training.evaluate import evaluate, model_answers
from pixelwise.training.sources import with_labels


def judge(folder: Path, val: str) -> dict[str, object]:
    """The metrics of a model folder on a data set."""
    module, card = read_model(folder)
    dataset = with_labels(open_dataset(val, default_split="val"), card.labels, None)
    metric = MeanIoU(card.labels)
    for _ in evaluate(model_answers(Predictor(module, card, device="cpu")), dataset, metric):
        pass
    return {**metric.compute(), "data": dataset.name, "images": len(dataset)}


def card_text(name: str, card: ModelCard, per_class: dict[str, dict[str, float | None]], notes: str, size: int) -> str:
    """The card as Markdown."""
    scores, training = card.scores, card.training
    arguments = ", ".join(f"{key} {value}" for key, value in card.arguments.items() if value is not None)
    rows = "\n".join(f"| {label} | {_percent(values['iou'])} |" for label, values in per_class.items())
    return f"""# {name}

| | |
|---|---|
| system | `{card.system}`, {arguments} |
| task | {card.task}, {len(card.labels)} classes of '{card.labels.name}' |
| input size | {card.input_size} px long side |
| mean IoU | **{scores["mean_iou"]:.4f}** on {scores["images"]} images of `{scores["data"]}`, one scale, as shipped |
| pixel accuracy | {scores["pixel_accuracy"]:.4f} |
| file | {size / 1e6:.1f} MB, float16 |
| revision | {training["revision"]} |
| licence | {card.licence} |

Trained by: `{training["command"]}`, {training["step"]:,} steps.

{notes.strip()}

| class | IoU |
|---|---|
{rows}
"""


def without_own_folders(command: str) -> str:
    """The command with `runs/NAME` for absolute paths, which mean nothing on another machine."""
    words = shlex.split(command)
    return shlex.join(f"runs/{Path(word).name}" if word.startswith("/") else word for word in words)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Read the run, write and judge the shipped folder, write its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--val", required=True)
    parser.add_argument("--input-size", type=int, help="long side in pixels; that of the run by default")
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
    input_size = options.input_size or card.input_size
    card = replace(card, licence=options.licence, training=training, input_size=input_size)
    write_model(folder, module.state_dict(), card, half=True)
    metrics = judge(folder, options.val)
    per_class = metrics.pop("per_class")
    card = replace(card, scores=metrics)
    write_model(folder, module.state_dict(), card, half=True)
    size = (folder / "model.safetensors").stat().st_size
    text = card_text(options.name, card, per_class, options.notes.read_text(encoding="utf-8"), size)  # pyright: ignore
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(f"{folder}: mean IoU {metrics['mean_iou']:.4f}, {size:,} bytes")


if __name__ == "__main__":
    main()
