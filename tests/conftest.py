"""For all tests: shapes and dtypes of signatures are checked, and small tensors are computed by one thread."""

import os

from jaxtyping import install_import_hook

# here and in every process that a test starts: with more threads they wait for each other longer than they compute
os.environ["OMP_NUM_THREADS"] = "1"

CHECKED = ["losses", "metrics", "models", "nn", "ops", "types"]
"""The others hold protocols and `Self`, which beartype cannot check on functions that stand by themselves."""

install_import_hook(
    [f"pixelwise.{name}" for name in CHECKED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # an int is a float, as PEP 484 has it
)
