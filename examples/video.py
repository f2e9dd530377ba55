# %% [markdown]
# # A video: predict, follow objects, read the result
#
# Run it as `python examples/video.py clip.mp4`.

# %%
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import torch

from pixelwise import load
from pixelwise.inference.predictor import Options

CLIP = Path(sys.argv[1] if len(sys.argv) > 1 else "clip.mp4")
OUT = Path(sys.argv[2] if len(sys.argv) > 2 else "out/video")

# %% [markdown]
# ## By the command line
# A run that was stopped goes on after its last whole frame.

# %%
labelled = OUT / f"{CLIP.stem}.labelled.mp4"
OUT.mkdir(parents=True, exist_ok=True)
command = ["predict", str(CLIP), "--task", "instance", "--track", "--out", str(labelled)]
subprocess.run([sys.executable, "-m", "pixelwise", *command], check=True)

# %% [markdown]
# ## Count the objects
# Beside the video lies a file of lines, one for each frame. A track id is the same object in all frames.

# %%
names: Counter[str] = Counter()
tracks: dict[int, str] = {}
for line in labelled.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
    for segment in json.loads(line).get("segments", []):
        if segment.get("track_id") is not None:
            tracks[segment["track_id"]] = segment["name"]
names.update(tracks.values())
print(dict(names) or "no objects")

# %% [markdown]
# ## Frame by frame, from Python
# A model that keeps a memory returns it; it goes into the call for the next frame. The others return None.

# %%
predictor, memory = load("default"), None
with av.open(str(CLIP)) as container:
    for number, frame in zip(range(3), container.decode(video=0), strict=False):
        image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).contiguous()
        annotation, memory = predictor.annotate_frame(image, memory, Options())
        assert annotation.semantic is not None
        found = [predictor.labels.names[index] for index in annotation.semantic.unique().tolist() if index != 255]
        print(f"frame {number}: {', '.join(found)}")
