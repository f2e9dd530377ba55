# %% [markdown]
# # A system of your own, outside pixelwise, trained by its command line
#
# `examples/plugin/` is a package of one module, `two_scale.py`. Its entry point in the group `pixelwise.models` makes
# it a system like those that ship: `pip install ./examples/plugin`, then run this file.

# %%
import json
import subprocess
import sys
from pathlib import Path

DATA = sys.argv[1] if len(sys.argv) > 1 else "masks:./scans"
OUT = Path(sys.argv[2] if len(sys.argv) > 2 else "out/own_model")
STEPS = int(sys.argv[3]) if len(sys.argv) > 3 else 200


def pixelwise(*arguments: object) -> str:
    """Run the command line as a shell does, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-m", "pixelwise", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


# %% [markdown]
# ## It is listed, and its recipe can be changed

# %%
systems = json.loads(pixelwise("models", "--json"))
print(next(system for system in systems if system["system"] == "two_scale"))
print(pixelwise("models", "two_scale"))

# %% [markdown]
# ## It is trained, evaluated and run like any other

# %%
steps = ("--set", f"steps={STEPS}", "--set", "crop_size=64", "--set", "model.channels=16")
pixelwise("train", "two_scale", "--data", DATA, *steps, "--out", OUT / "run")
result = json.loads(pixelwise("evaluate", OUT / "run", "--data", DATA, "--json"))
print(f"mean IoU {result['metrics']['mean_iou']:.3f}")
