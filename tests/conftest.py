"""One thread for small tensors, here and in every process a test starts: with more, they wait for each other longer
than they compute, and far longer when the machine is busy."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
