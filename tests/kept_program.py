"""A program for the command line to interrupt: two members, each a flow, and a flow of its own."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from experiments._together import side_by_side
from meanfield import flow
from meanfield.command import Outcome
from meanfield.kept import NOTHING

SUMMARY = "Flows of cosines."
RATES = np.geomspace(0.01, 30.0, 50)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How far the flows go."""

    horizon: float = 5.0
    rtol: float = 1e-5


PRESETS = {"default": Config()}


def energy(theta):
    return jnp.sum(jnp.cos(theta) * RATES) + jnp.sum(RATES * theta**4)


def between():
    """Something to put between the members and the last flow."""


def run(config, *, out_dir, progress, kept=NOTHING):
    """The paths of three flows."""
    field = flow.gradient_field(energy)
    kept.same("data", {"rates": "0" * 64})

    def path(seed):
        record = flow.gradient_flow(
            field,
            jnp.linspace(-1.0, 1.0, 50) + seed,
            np.linspace(0.0, config.horizon, 9),
            rtol=config.rtol,
            observe=jnp.sin,
            progress=f"seed {seed}" if progress else None,
            checkpoint=kept.checkpoints(f"seed {seed}"),
        )
        return record.observables, record.statistics

    members = side_by_side(path, [0, 1], keep=kept.members("path"))
    between()
    arrays = {"members": {str(at): found for at, found in enumerate(members)}, "last": path(2)}
    return Outcome(arrays=arrays, report="# Paths", summary="", data_checksums={}, seeds=[0, 1, 2])
