# %% [markdown]
# # Your own data: check, train, evaluate, predict
#
# Run it as `python examples/own_data.py masks:./scans`, or cell by cell in an editor that knows `# %%`.
# The data set is a folder with `images/`, `masks/` of class ids and a `labels.txt` (docs/data.md has 18 more formats).

# %%
import json
import subprocess
import sys
from pathlib import Path

DATA = sys.argv[1] if len(sys.argv) > 1 else "masks:./scans"
OUT = Path(sys.argv[2] if len(sys.argv) > 2 else "out/own_data")
STEPS = int(sys.argv[3]) if len(sys.argv) > 3 else 2_000
OUT.mkdir(parents=True, exist_ok=True)


def pixelwise(*arguments: object, fails: bool = False) -> str:
    """Run the command line as a shell does, and return what it prints."""
    command = [sys.executable, "-m", "pixelwise", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode and not fails:
        raise SystemExit(result.returncode)
    return result.stdout


# %% [markdown]
# ## 1. Check
# Exit code 1 says that there are faults; each is named. `--fix COPY` writes a repaired copy.

# %%
print(pixelwise("data", "check", DATA, fails=True))
print(pixelwise("data", "stats", DATA))
pixelwise("data", "show", DATA, "--out", OUT / "sheet.png")

# %% [markdown]
# ## 2. Train
# `--init default` begins from the weights that ship and takes their architecture; classes of the same name keep theirs.

# %%
pixelwise(
    *("train", "deeplab_v3_plus", "--data", DATA, "--init", "default"),
    *("--set", f"steps={STEPS}", "--set", "crop_size=128", "--out", OUT / "run"),
)

# %% [markdown]
# ## 3. Evaluate
# Without `@SPLIT` the val split counts.

# %%
result = json.loads(pixelwise("evaluate", OUT / "run", "--data", DATA, "--out", OUT / "report", "--json"))
print(f"mean IoU {result['metrics']['mean_iou']:.3f} on {result['images']} images")
for name, numbers in result["per_class"].items():
    print(f"  {name}: {numbers}")

# %% [markdown]
# ## 4. Predict, from Python

# %%
from pixelwise import load  # noqa: E402
from pixelwise.data.spec import open_dataset  # noqa: E402

predictor = load(OUT / "run")
photo = open_dataset(DATA, default_split="val").image_path(0)
scene = predictor(photo)
print(*scene.save(OUT / "photo"), sep="\n")
