# %% [markdown]
# # A system in your own training loop
#
# Every system is a plain `nn.Module`: `forward` gives an output, `loss` its named terms, `decode` annotations.
# Nothing of `pixelwise.training` is needed. Run it as `python examples/own_loop.py masks:./scans`.

# %%
import sys

import numpy as np
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.loading.collate import collate
from pixelwise.data.loading.crop import TrainingCrop
from pixelwise.data.spec import open_dataset
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.models.pspnet import build
from pixelwise.ops.resize_rule import ResizeRule

DATA = sys.argv[1] if len(sys.argv) > 1 else "masks:./scans"
OUT = sys.argv[2] if len(sys.argv) > 2 else "out/own_loop"
STEPS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
SIDE = 128

# %% [markdown]
# ## Data
# A data set gives samples: an image u8[3, H, W] and its ground truth. The crop is an ordinary function of a sample and
# a NumPy generator; replace it by your own.

# %%
train, val = (open_dataset(DATA, default_split=split) for split in ("train", "val"))
crop = TrainingCrop(Augmentation(), SIDE, ResizeRule(length=SIDE), train.labels.ignore_id)
generator = np.random.default_rng(0)


def batch_of(size: int):
    """Random crops of random images, joined."""
    places = generator.integers(len(train), size=size)
    return collate([crop(train[int(place)], generator) for place in places])


# %% [markdown]
# ## Loop
# A term of the loss is a sum and a count, so that several processes can divide once; here the mean is enough.

# %%
torch.manual_seed(0)
network = build(num_classes=len(train.labels), backbone="mobilenet_v2", output_stride=16).train()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
for step in range(1, STEPS + 1):
    batch = batch_of(4)
    terms = network.loss(network(batch.images), batch)
    loss = torch.stack([term.weight * term.sum / term.count.clamp(min=1) for term in terms.values()]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0 or step == STEPS:
        print(f"step {step}: loss {loss.item():.3f}")

# %% [markdown]
# ## Metric
# A predictor runs the network at any image size; the metric counts image by image.

# %%
card = ModelCard(task="semantic", system="pspnet", labels=train.labels, resize=ResizeRule(length=SIDE))
predictor = Predictor(network.eval(), card, device="cpu")
metric = MeanIoU(val.labels)
for index in range(len(val)):
    sample = val[index]
    metric.update(predictor.annotate(sample.image), sample.truth, id=sample.id)
print(f"mean IoU {metric.compute()['mean_iou']:.3f}")

# %% [markdown]
# ## Store it
# The folder is what `pixelwise predict --model` and `pixelwise.load` take.

# %%
arguments = {"backbone": "mobilenet_v2", "output_stride": 16}
write_model(OUT, network.state_dict(), ModelCard(**{**vars(card), "arguments": arguments}))
print(f"stored in {OUT}")
