r"""The Wasserstein gradient flow of a Transformer's measures, on a grid, against M particles.

    d rho_t/dtau = div(rho_t grad dQ/drho(theta, t))    at every depth t at once (Gao et al., eq. 9)

for scalar tokens, where heads and neurons are points of the plane
(:mod:`experiments.global_convergence.scalar_transformer`) and the limit of infinite width can be
computed: a density per half-step, coupled over depths by the tokens. Networks of M particles drawn
from the density at time 0 follow the flow of their own energy, and must approach it at the rate
M^{-1/2} (:mod:`experiments.global_convergence.pde_errors`).

One trap: particles are compared with the grid and not with the limit itself, so the finest grid's
own error is a floor of every distance; it is measured by halving the grid.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (9), (21).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.global_convergence import pde_errors, pde_facts, pde_report
from experiments.global_convergence import scalar_transformer as scalar
from meanfield import checks, flow, measure
from meanfield.kept import NOTHING, Kept

SUMMARY = "The Wasserstein gradient flow on a grid against M particles, animated (Gao, eq. 9)."
LEAST_CELLS = 4

# Before the manifest notes the precision of the run: mass is kept to round-off.
jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The limit of infinite width on a grid, and the particles that approach it."""

    depth: int = 2
    """Layers, each of one half-step of heads and one of neurons."""
    samples: int = 4
    """Training samples."""
    tokens: int = 3
    """Scalar tokens of each sample."""
    data_seed: int = 5
    """Seed of the samples."""
    weight_decay: float = 0.1
    """Constant lambda of the decay."""
    centre: float = 0.3
    """Centre of the initial density in both coordinates, at every depth."""
    radius: float = 1.4
    """Half-side of the square that the initial density fills."""
    half: float = 3.0
    """Half-side of the grid."""
    cells: tuple[int, ...] = (24, 32, 40, 48)
    """Cells per axis of the grids that are each compared with the one twice as fine; increasing."""
    horizon: float = 1.5
    """Length of the flow, in mean-field time."""
    saves: int = 31
    """Times at which densities and clouds are saved, both ends included."""
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    """Numbers M of particles per half-step, increasing."""
    seeds: int = 48
    """Independent networks of each width."""
    bins: int = 8
    """Bins per axis of the histogram of particles."""
    shown: int = 128
    """The width whose particles are drawn over the density."""
    rtol: float = 1e-5
    """Relative tolerance of a step of the particles."""
    atol: float = 1e-7
    """Absolute tolerance of a step of the particles."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("depth", "samples", "tokens", "bins"):
            checks.count(name, getattr(self, name))
        for name in ("radius", "half", "horizon", "rtol", "atol"):
            checks.positive(name, getattr(self, name))
        checks.non_negative("weight_decay", self.weight_decay)
        checks.count("saves", self.saves, least=5)
        checks.count("seeds", self.seeds, least=2)
        for name in ("cells", "widths"):
            numbers = getattr(self, name)
            for number in numbers:
                checks.count(name, number, least=LEAST_CELLS if name == "cells" else 1)
            if len(numbers) < 3 or np.any(np.diff(numbers) <= 0):
                raise ValueError(
                    f"{name} must be three or more increasing numbers, got {numbers}: a slope "
                    "needs three"
                )
        if self.shown not in self.widths:
            raise ValueError(f"shown must be one of the widths {self.widths}, got {self.shown}")
        if self.finest % self.bins:
            raise ValueError(
                f"bins must divide the {self.finest} cells of the finest grid, got {self.bins}"
            )
        if abs(self.centre) + self.radius >= self.half:
            raise ValueError(
                f"half must exceed |centre| + radius = {abs(self.centre) + self.radius:g}, got "
                f"{self.half}: the density starts within the grid"
            )

    @property
    def finest(self) -> int:
        """Cells per axis of the finest grid, which particles are compared with."""
        return 2 * self.cells[-1]


PRESETS = {
    "tiny": Config(
        depth=1, cells=(4, 8, 16), horizon=0.3, saves=6, widths=(8, 16, 32), seeds=3, shown=16
    ),
    "default": Config(),
}


def run(config: Config, *, out_dir: Path, progress: bool, kept: Kept = NOTHING) -> Outcome:
    """Solves the equation and the particles, compares, draws and reports."""
    given = scalar.data(
        config.data_seed,
        samples=config.samples,
        tokens=config.tokens,
        weight_decay=config.weight_decay,
    )
    ts = np.linspace(0.0, config.horizon, config.saves)
    sizes = sorted({*config.cells, *(2 * cells for cells in config.cells)}, reverse=True)
    solved = side_by_side(
        lambda cells: _densities(config, given, cells, ts),
        sizes,
        keep=kept.members("grid"),
        label="grids" if progress else None,
    )
    grids = dict(zip(sizes, solved, strict=True))
    grid, densities = grids[config.finest]
    record = _particles(config, given, grids[config.finest], kept, progress=progress)
    arrays = _grid_arrays(config, given, grid, densities)
    arrays |= _refinement(config, given, grids)
    arrays |= kept.member(
        "errors", lambda: _particle_arrays(config, given, (grid, densities), record)
    )
    found = pde_facts.facts(arrays)
    notes = _notes(grids, record)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=pde_report.report(arrays, found, config, notes),
        summary=pde_report.summary(found),
        data_checksums={},
        seeds=list(range(config.seeds)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    pde_report.draw(arrays, pde_facts.facts(arrays), out_dir)


def _densities(config: Config, given: scalar.Data, cells: int, ts: np.ndarray) -> tuple:
    """The grid and the flow of densities on it; of all but the finest the last one only."""
    side = [config.half] * 2
    grid = measure.uniform_grid([-end for end in side], side, [cells] * 2)

    def bump(x):
        inside = jnp.maximum(1 - ((x - config.centre) / config.radius) ** 2, 0.0)
        return jnp.tile(jnp.prod(inside**2, axis=-1)[None], (2 * config.depth, 1))

    start = measure.grid_density(bump, grid)
    variation = measure.variation_of(scalar.energy(given), depth=config.depth)
    times = ts if cells == config.finest else ts[[0, -1]]
    return grid, measure.density_flow(variation, start, grid, times)


def _particles(
    config: Config, given: scalar.Data, solved: tuple, kept: Kept, *, progress: bool
) -> flow.Record:
    """All networks of all widths, their clouds [t s r m 2] observed."""
    grid, densities = solved
    many = jnp.tile(densities.density[0], (config.seeds, 1, 1))
    # The references of pde_errors are drawn from the keys 1 and 2.
    keys = [jax.random.fold_in(jax.random.key(0), width) for width in config.widths]
    shape = (config.seeds, 2 * config.depth)
    drawn = [
        measure.draw_particles(key, many, grid, width).reshape(*shape, width, 2)
        for key, width in zip(keys, config.widths, strict=True)
    ]
    record = flow.gradient_flow(
        scalar.networks(given),
        tuple(drawn),
        densities.times,
        rtol=config.rtol,
        atol=config.atol,
        observe=_itself,
        progress="particles" if progress else None,
        checkpoint=kept.checkpoints("particles"),
    )
    if record.result != "completed":
        raise ValueError(f"the particles must reach the horizon: {record.message}")
    return record


def _itself(theta: Any) -> Any:
    return theta


def _grid_arrays(config: Config, given: scalar.Data, grid: measure.Grid, found: Any) -> dict:
    energies, _ = pde_errors.of_densities(given, grid, found.density)
    return {
        "edges": np.asarray(grid.edges[0]),
        "times": found.times,
        "density": np.asarray(found.density, np.float32),
        "energy": energies,
        "dissipated": np.asarray(found.dissipated),
        "mass_error": found.mass_error,
        "least": float(jnp.min(found.density)),
        "blocked": float(jnp.max(found.blocked)),
        "steps": found.steps,
        "completed": found.result == "completed",
        "depth": config.depth,
    }


def _refinement(config: Config, given: scalar.Data, grids: dict[int, tuple]) -> dict[str, Any]:
    """L^1 distance at the end of each grid to that of twice as many cells, mean over half-steps."""
    gaps = []
    for cells in config.cells:
        (grid, coarse), (_, fine) = grids[cells], grids[2 * cells]
        averages = pde_errors.block_means(np.asarray(fine.density[-1]), cells)
        distance = np.abs(np.asarray(coarse.density[-1]) - averages).sum(axis=(1, 2))
        gaps.append(float(distance.mean() * float(grid.volume)))
    outputs = [
        pde_errors.of_densities(given, grid, found.density[-1:])[1][0]
        for grid, found in (grids[config.finest // 2], grids[config.finest])
    ]
    floor = float(np.sqrt(np.mean((outputs[0] - outputs[1]) ** 2)))
    return {"cells": np.array(config.cells), "gaps": np.array(gaps), "floor": floor}


def _particle_arrays(
    config: Config, given: scalar.Data, solved: tuple, record: flow.Record
) -> dict[str, Any]:
    clouds = dict(zip(config.widths, record.observables, strict=True))
    shown = clouds[config.shown][:, 0]
    ends = (config.widths[0], config.widths[-1])
    energies = pde_errors.energies(given, {width: clouds[width] for width in ends})
    return {
        "widths": np.array(config.widths),
        "errors": pde_errors.errors(given, solved[0], solved[1], clouds, bins=config.bins),
        "energies": {str(width): energies[width] for width in ends},
        "weak": pde_errors.weak(given, record.times, shown),
        "shown": shown,
        "balance": record.worst_balance,
        "gradients": record.statistics["gradients"],
    }


def _notes(grids: dict[int, tuple], record: flow.Record) -> list[str]:
    """What grids and particles want said."""
    named = [(f"{cells} cells", found) for cells, (_, found) in grids.items()]
    notes = []
    for name, found in [*named, ("particles", record)]:
        said = list(found.warnings) + ([found.message] if found.result != "completed" else [])
        notes += [f"{name}: {sentence}" for sentence in said]
    return notes
