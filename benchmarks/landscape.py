"""Cost of a surface of the risk beside that of the bare risk evaluations that it needs.

    ratio = seconds of a surface / seconds of as many bare evaluations, in turns, median over rounds

One trap: the wall's time of a busy machine measures its other users; the processor's own time is
what the number asked for is held against.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from benchmarks import landscape_problems, landscape_report
from benchmarks.distance_timing import Timing, interleaved
from meanfield import checks, store
from meanfield.command import Outcome

SUMMARY = "A surface of the risk against the bare risk evaluations it needs: time side by side."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A surface of the risk, and bare evaluations at its points."""

    points: int = 41
    """Points along each side of the surface."""
    chunks: tuple[int, ...] = (1, 8, 64)
    """Points evaluated side by side, by the surface and by the bare evaluations alike."""
    samples: int = 64
    """Samples of the Transformer's risk; the regression has four times as many."""
    context: int = 15
    """Tokens of a sample, besides the query."""
    depth: int = 2
    """Layers of the Transformer."""
    width: int = 2
    """Heads of each layer; neurons are eight times as many."""
    dim: int = 1024
    """Parameters of the regression."""
    rounds: int = 9
    """Samples of each contender, taken in turns."""
    least_seconds: float = 0.05
    """Seconds that one sample fills, with as many calls as it takes."""
    seed: int = 0
    """Seed of the data, the parameters and the directions."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("points", "samples", "context", "depth", "width", "dim"):
            checks.count(name, getattr(self, name))
        checks.count("rounds", self.rounds, least=2)
        checks.non_negative("least_seconds", self.least_seconds)
        if not self.chunks:
            raise ValueError("chunks must hold at least one number, got none")
        for chunk in self.chunks:
            checks.count("chunk", chunk)


PRESETS = {
    "tiny": Config(
        points=3, chunks=(2,), samples=2, context=3, depth=1, dim=16, rounds=2, least_seconds=0.0
    ),
    "default": Config(),
}


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Times surfaces and bare evaluations of both risks, draws and reports."""
    key = jax.random.key(config.seed)
    problems = {
        "Transformer": landscape_problems.transformer(
            key, samples=config.samples, context=config.context, depth=config.depth,
            width=config.width,
        ),
        "regression": landscape_problems.regression(
            key, samples=4 * config.samples, dim=config.dim
        ),
    }  # fmt: skip
    rows = []
    for name, problem in problems.items():
        rows += _timed(name, problem, config)
        if progress:
            print("\n".join(map(landscape_report.line, rows[-2 * len(config.chunks) - 1 :])))
    results: dict = {"rows": rows, "numbers": landscape_report.numbers(rows)}
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    landscape_report.draw(rows, config.points**2, out_dir)
    kept = ("parameters", "chunk", "seconds", "processor_seconds", "first_seconds", "error")
    return Outcome(
        arrays={name: np.array([row[name] for row in rows]) for name in kept},
        report=landscape_report.page(results, config),
        summary=landscape_report.summary(results),
        data_checksums={},
        seeds=[config.seed],
    )


def _timed(name: str, problem: landscape_problems.Problem, config: Config) -> list[dict]:
    """The rows of one risk: what was timed, and how far its risks are from the loop's."""
    functions = landscape_problems.contenders(problem, points=config.points, chunks=config.chunks)
    truth = functions[landscape_problems.LOOP, 1]()
    sums = {key: lambda run=run: float(np.sum(run())) for key, run in functions.items()}
    timings = interleaved(
        {str(key): run for key, run in sums.items()},
        rounds=config.rounds,
        least_seconds=config.least_seconds,
        patience=float("inf"),
    )
    return [
        _row(name, problem, key, timings[str(key)], np.max(np.abs(run() / truth - 1)))
        for key, run in functions.items()
    ]


def _row(
    name: str,
    problem: landscape_problems.Problem,
    key: tuple[str, int],
    timing: Timing,
    error: float,
) -> dict:
    return {
        "problem": name,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(problem.parameters)),
        "contender": key[0],
        "chunk": key[1],
        "seconds": timing.seconds,
        "processor_seconds": timing.processor_seconds,
        "first_seconds": timing.first_seconds,
        "samples": timing.samples,
        "processor_samples": timing.processor_samples,
        "error": float(error),
    }
