"""Settings of the whole suite: float64, strict shapes, checked signatures, no display, one seed.

They are set before anything imports `meanfield`, because jaxtyping's hook can only decorate what
is not yet imported.
"""

import os

import matplotlib as mpl

mpl.use("Agg")
# Children inherit it, so a program run by a test sees the same device as the test.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("suite")

install_import_hook("meanfield", "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def released_programs():
    """Drops the programs of a test file: kept, they fill 4 GB in each worker by the end."""
    yield
    jax.clear_caches()
