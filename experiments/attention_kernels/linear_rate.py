r"""Loss against iterations of one attention layer, with the bound of its theorem and the rate seen.

Gradient descent of random layers, softmax and Gaussian, at sizes on both sides of HD = Nn:

    W^V alone           eta = 1/beta,      f_t <= (1 - eta mu)^t f_0
    W^Q, W^K, W^V       eta = 1/(2 beta),  f_t <= prod (1 - eta mu_t) f_0 along the path

Three scans through one size in the middle change H, D or N alone, so HD/(Nn) runs through the
threshold in three ways; all three matrices are trained where H is scanned and HD >= Nn, from random
starts, which hardly ever pass the ball test, and from starts that are made to pass it. Every run is
held against the ball test of its start.

One trap: the bound is of the worst direction, and random features are ill-conditioned at the
threshold: the promised rate may be thousands of times slower than the one seen, and both are right.

References:
    Song et al. 2024, arXiv 2411.07538.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.attention_kernels import (
    linear_rate_cells,
    linear_rate_facts,
    linear_rate_report,
)
from meanfield import checks
from meanfield.kept import NOTHING, Kept

SUMMARY = "Loss of one attention layer against its linear-rate bound, across HD = Nn (Song)."

# Before the manifest notes the precision of the run: bounds are checked to round-off.
jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of the scans, and the length of the runs."""

    samples: int = 8
    """Samples N of the size in the middle."""
    tokens: int = 2
    """Tokens n of each sample, at every size."""
    dim: int = 4
    """Token dimension D of the size in the middle."""
    heads: int = 4
    """Heads H of the size in the middle."""
    head_dim: int = 2
    """Head dimension k, at every size."""
    outputs: int = 1
    """Outputs of a token, at every size; at most k."""
    scans: tuple[str, ...] = linear_rate_facts.AXES
    """Which of N, D and H are changed in turn; H among them."""
    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """By what H, D and N of the middle are multiplied in turn; increasing, 1 among them."""
    scale: float = 2.0
    """Standard deviation of the weights, times the root of the fan-in."""
    bandwidth: float = 0.5
    """Constant c of the Gaussian kernel."""
    steps: int = 2000
    """Steps of W^V alone."""
    steps_all: int = 200
    """Steps of W^Q, W^K and W^V together, whose constants are computed at each."""
    seeds: int = 16
    """Independent problems of each size."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("samples", "tokens", "dim", "heads", "head_dim", "outputs", "seeds"):
            checks.count(name, getattr(self, name))
        for name in ("steps", "steps_all"):
            checks.count(name, getattr(self, name), least=16)
        for name in ("scale", "bandwidth"):
            checks.positive(name, getattr(self, name))
        if self.outputs > self.head_dim:
            raise ValueError(
                f"outputs must be at most head_dim = {self.head_dim}, got {self.outputs}: mu = 0 "
                "otherwise"
            )
        for name in self.scans:
            checks.choice("scans", name, linear_rate_facts.AXES)
        if "heads" not in self.scans:
            raise ValueError(
                f"scans must hold heads, where all three are trained, got {self.scans}"
            )
        if np.any(np.diff(self.factors) <= 0) or 1.0 not in self.factors:
            raise ValueError(f"factors must increase and hold 1, got {self.factors}")
        for name in self.scans:
            for factor in self.factors:
                if factor * getattr(self, name) != round(factor * getattr(self, name)):
                    raise ValueError(
                        f"factors must give whole numbers, got {factor} of {name} = "
                        f"{getattr(self, name)}"
                    )

    def sizes(self, axis: str, factor: float) -> dict[str, int]:
        """N, D and H where one of them is multiplied."""
        found = {name: getattr(self, name) for name in linear_rate_facts.AXES}
        return found | {axis: round(factor * found[axis])}


PRESETS = {
    "tiny": Config(
        samples=2,
        dim=2,
        heads=2,
        scans=("heads",),
        factors=(0.5, 1.0),
        steps=64,
        steps_all=16,
        seeds=3,
    ),
    "default": Config(),
}


def run(config: Config, *, out_dir: Path, progress: bool, kept: Kept = NOTHING) -> Outcome:
    """Runs descent at every size, checks every iterate against its bound, draws and reports."""
    scans = {
        axis: [tuple(config.sizes(axis, factor).values()) for factor in config.factors]
        for axis in linear_rate_facts.AXES
        if axis in config.scans
    }
    wide = [size for size in scans["heads"] if linear_rate_cells.ratio(config, size) >= 1]
    # The middle is one size of all three scans: it is run once. The longest runs come first.
    sizes = sorted({size for scan in scans.values() for size in scan}, key=lambda n: -np.prod(n))
    cells = side_by_side(
        lambda size: linear_rate_cells.cells(config, size, together=size in wide),
        sizes,
        keep=kept.members("size"),
        label="sizes" if progress else None,
    )
    found = dict(zip(sizes, cells, strict=True))
    arrays: dict[str, Any] = {
        kernel: {
            axis: _stacked([found[size][kernel][0] for size in scan])
            for axis, scan in scans.items()
        }
        | {"all": _stacked([found[size][kernel][1] for size in wide])}
        for kernel in linear_rate_facts.KERNELS
    }
    sizes = scans.get("samples", [tuple(config.sizes("heads", 1.0).values())])
    arrays["starts"] = kept.member(
        "starts", lambda: linear_rate_cells.smallest_starts(config, sizes)
    )
    facts = linear_rate_facts.facts(arrays)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=linear_rate_report.report(arrays, facts, config),
        summary=linear_rate_report.summary(facts),
        data_checksums={},
        seeds=list(range(config.seeds)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    linear_rate_report.draw(arrays, out_dir)


def _stacked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: _stacked([row[name] for row in rows])
        if isinstance(rows[0][name], dict)
        else np.stack([row[name] for row in rows])
        for name in rows[0]
    }
