"""Parameters and operations of every variant of every system, with random weights.

    python benchmarks/costs.py [--only NAME] [--record]

Operations are those of `forward` on one image of 512×512 pixels of noise, counted by `torch.utils.flop_counter`; a
multiplication with its addition counts two. What a detector computes for each proposal depends on how many it keeps:
with random weights it keeps as many as it may. `--record` writes `benchmarks/results/costs.json`, which the model zoo
shows.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
from results import FOLDER, add_option
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.errors import PixelwiseError
from pixelwise.inference.systems import system_module, system_names
from pixelwise.training.run.recipes import named_system

SIDE, CLASSES = 512, 21


def variants() -> list[tuple[str, str]]:
    """Every system's name and the name of each of its variants."""
    return [(system, variant) for system in system_names() for variant in system_module(system).VARIANTS]


def parameters(variant: str) -> int:
    """How many numbers its network learns."""
    named = named_system(variant)
    with torch.device("meta"):
        network = named.module.build(num_classes=CLASSES, **named.arguments)
    return sum(parameter.numel() for parameter in network.parameters())


@torch.inference_mode()
def gflops(variant: str) -> float:
    """1e9 operations of the network on one image."""
    named = named_system(variant)
    torch.manual_seed(0)
    network = named.module.build(num_classes=CLASSES, **named.arguments).eval()
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.rand(1, 3, SIDE, SIDE))
    return counter.get_total_flops() / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="part of a variant's name")
    add_option(parser)
    options = parser.parse_args()
    file = FOLDER / "costs.json"
    costs = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for system, variant in variants():
        if options.only in variant:
            try:
                cost = {"system": system, "parameters": parameters(variant), "gflops": round(gflops(variant), 1)}
            except (PixelwiseError, RuntimeError) as error:
                print(f"{variant}: {error}", flush=True)
                continue
            costs[variant] = cost
            print(
                f"{variant}: {cost['parameters'] / 1e6:.1f} million parameters, {cost['gflops']:,} GFLOPs", flush=True
            )
            if options.record:
                file.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
