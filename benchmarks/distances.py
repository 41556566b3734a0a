"""Time of distances between clouds, side by side with POT and ott-jax, and whether they agree.

    ratio = seconds of this library / seconds of the fastest other, each a median over rounds

All get the same clouds in double precision and give the same number. Compilation is listed apart.

One trap: the fastest method depends on dimension, so low and high ones are both tried.
"""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import distance_peers, distance_report
from benchmarks.distance_peers import OURS
from benchmarks.distance_timing import Timing, interleaved
from meanfield import checks, measure, store
from meanfield.command import Outcome

SUMMARY = "Exact, sliced and Sinkhorn distances against POT and ott-jax: time and agreement."

# Power of the size by which the time of a library grows at most.
_GROWTH = {"exact": 3, "sliced": 1, "sinkhorn": 2}
# Before the manifest notes the precision of the run.
jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Distances of clouds, side by side with other libraries."""

    kinds: tuple[str, ...] = ("exact", "sliced", "sinkhorn")
    """Distances, among exact, sliced and sinkhorn."""
    sizes: tuple[int, ...] = (256, 1024, 4096)
    """Points in each cloud, in growing order."""
    dims: tuple[int, ...] = (2, 64)
    """Dimensions of the points."""
    projections: int = 128
    """Directions of the sliced distance."""
    tolerance: float = 1e-4
    """Marginal error at which the Sinkhorn iterations of all libraries stop."""
    rounds: int = 9
    """Samples of each library, taken in turns."""
    least_seconds: float = 0.05
    """Seconds that one sample fills, with as many calls as it takes."""
    patience: float = 40.0
    """Seconds for all samples of one library at one size; a slow one gets fewer, at least two."""
    longest_call: float = 60.0
    """Seconds of one call, foreseen from the size before, above which a library is left out."""
    seed: int = 0
    """Seed of the clouds and the directions."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in self.kinds:
            checks.choice("kind", name, distance_peers.KINDS)
        for what in ("sizes", "dims"):
            if not getattr(self, what):
                raise ValueError(f"{what} must hold at least one number, got none")
            for number in getattr(self, what):
                checks.count(what, number)
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes must grow, got {self.sizes}")
        checks.count("rounds", self.rounds, least=2)
        checks.positive("tolerance", self.tolerance)


PRESETS = {
    "tiny": Config(
        sizes=(24, 48), dims=(2,), projections=16, rounds=2, least_seconds=0.0, patience=1.0
    ),
    "default": Config(),
}


class Row(NamedTuple):
    """One library on one pair of clouds."""

    kind: str
    dim: int
    size: int
    library: str
    value: float
    error: float
    seconds: float
    processor_seconds: float
    quartiles: tuple[float, float]
    first_seconds: float
    samples: int
    left_out: str


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Times every distance in every dimension and size, draws and reports."""
    rows: list[Row] = []
    for kind in config.kinds:
        for dim in config.dims:
            for size in config.sizes:
                found = _compared(kind, dim, size, config, rows)
                rows += found
                if progress:
                    print("\n".join(distance_report.line(row._asdict()) for row in found))
    results: dict = {"rows": [row._asdict() for row in rows]}
    results["numbers"] = distance_report.numbers(results["rows"])
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    distance_report.draw(results["rows"], out_dir)
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in Row._fields}
    return Outcome(
        arrays=columns,
        report=distance_report.page(results, config),
        summary=distance_report.summary(results),
        data_checksums={},
        seeds=[config.seed],
    )


def _compared(kind: str, dim: int, size: int, config: Config, before: list[Row]) -> list[Row]:
    """The rows of one pair of clouds."""
    pair = distance_peers.clouds(
        config.seed, size, dim, projections=config.projections, tolerance=config.tolerance
    )
    contenders = distance_peers.KINDS[kind](pair)
    foreseen = {name: _foreseen(before, kind, dim, size, name) for name in contenders}
    timings = interleaved(
        {name: run for name, run in contenders.items() if foreseen[name] <= config.longest_call},
        rounds=config.rounds,
        least_seconds=config.least_seconds,
        patience=config.patience,
    )
    truth = _reference(kind, pair, timings)
    rows = []
    for name in contenders:
        if name in timings:
            timing = timings[name]
            low, high = np.quantile(timing.samples, [0.25, 0.75])
            rows.append(Row(
                kind, dim, size, name, timing.value, abs(timing.value / truth - 1),
                timing.seconds, timing.processor_seconds, (float(low), float(high)),
                timing.first_seconds, len(timing.samples), "",
            ))  # fmt: skip
        else:
            why = f"{foreseen[name]:.0f} s foreseen for one call"
            rows.append(Row(
                kind, dim, size, name, np.nan, np.nan, np.nan, np.nan, (np.nan, np.nan),
                np.nan, 0, why,
            ))  # fmt: skip
    return rows


def _reference(kind: str, pair: distance_peers.Clouds, timings: dict[str, Timing]) -> float:
    """What values are compared with: the other library's, or that of a far smaller tolerance."""
    if kind != "sinkhorn":
        return timings["POT"].value
    return float(measure.sinkhorn_divergence(pair.x, pair.y, epsilon=pair.epsilon, tolerance=1e-10))


def _foreseen(before: list[Row], kind: str, dim: int, size: int, library: str) -> float:
    """Seconds of a call, from those at the size before; 0 for those always compared."""
    if library in (OURS, "POT"):
        return 0.0
    smaller = [r for r in before if (r.kind, r.dim, r.library) == (kind, dim, library)]
    if not smaller:
        return 0.0
    if smaller[-1].left_out:
        return np.inf
    return smaller[-1].seconds * (size / smaller[-1].size) ** _GROWTH[kind]
