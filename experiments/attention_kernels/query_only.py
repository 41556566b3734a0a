r"""Success of training W^Q alone, softmax against Gaussian, on the same random problems.

One sample of n tokens, one head; W^K, W^V, W^O fixed and random, W^Q trained from a random start of
a given scale. The target of token a lies at a given distance from the middle of its values u_b,

    y_a = mean_b u_b + distance * rms_b |u_b - mean u| * (a random direction),

so that small distances are within reach of softmax and large ones are not: rows of softmax stay in
the convex hull of the values, rows of the Gaussian kernel in {sum w_b u_b, 0 <= w <= 1}.
Each kernel runs every problem with every step of one ladder, and its best end counts: success is
f_T <= tolerance * |y|^2/2, the same threshold for both kernels.

One trap: which kernel wins depends on scale and target far more than on the kernel; a verdict of
one cell is no verdict on the kernels. The map is the result.

References:
    Song et al. 2024, arXiv 2411.07538 (query-only training).
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.attention_kernels import query_only_facts, query_only_report
from meanfield import checks, nn, theory

SUMMARY = "Success of W^Q-only training by kernel over dimension, scale and target distance (Song)."

SEED = 0

# Before the manifest notes the precision of the run.
jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The map, and the descent in each of its cells."""

    tokens: int = 4
    """Tokens n of the one sample; the theory asks for D >= n."""
    dims: tuple[int, ...] = (2, 4, 8)
    """Token dimensions D, across n."""
    scales: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Standard deviations of W^Q and W^K, times the root of D."""
    distances: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    """Distances of the targets from the middle of the values, in units of the values' spread."""
    head_dim: int = 2
    """Head dimension k."""
    outputs: int = 1
    """Outputs of a token."""
    bandwidth: float = 0.5
    """Constant c of the Gaussian kernel."""
    ladder: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Steps, divided by |X|^2 times the mean square of the values."""
    steps: int = 3000
    """Steps of descent."""
    tolerance: float = 1e-3
    """Success is a risk below this share of |y|^2/2."""
    seeds: int = 400
    """Random problems of each cell, all from one seed."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("tokens", "head_dim", "outputs", "steps"):
            checks.count(name, getattr(self, name))
        checks.count("seeds", self.seeds, least=2)
        for name in ("bandwidth", "tolerance"):
            checks.positive(name, getattr(self, name))
        for name in ("dims", "scales", "distances", "ladder"):
            numbers = getattr(self, name)
            for number in numbers:
                checks.count(name, number) if name == "dims" else checks.positive(name, number)
            if not numbers or np.any(np.diff(numbers) <= 0):
                raise ValueError(f"{name} must be one or more increasing numbers, got {numbers}")


PRESETS = {
    "tiny": Config(
        dims=(4,), scales=(1.0,), distances=(0.5, 2.0), ladder=(1.0,), steps=50, seeds=20
    ),
    "default": Config(),
}


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Runs both kernels on every problem of every cell, compares, draws and reports."""
    jobs = [(dim, kernel) for dim in reversed(config.dims) for kernel in query_only_facts.KERNELS]
    done = []

    def job(item):
        found = _ends(config, *item)
        done.append(item)
        if progress:
            print(f"\r{len(done)} of {len(jobs)} programs", end="", flush=True)
        return found

    found = dict(zip(jobs, side_by_side(job, jobs), strict=True))
    arrays: dict[str, Any] = {
        kernel: np.stack([found[dim, kernel] for dim in config.dims])
        for kernel in query_only_facts.KERNELS
    }
    arrays["out of reach"] = {
        rows: np.stack([_out_of_reach(config, dim, rows) for dim in config.dims])
        for rows in query_only_facts.ROWS.values()
    }
    for name in ("dims", "scales", "distances"):
        arrays[name] = np.array(getattr(config, name))
    arrays |= {"tolerance": config.tolerance, "tokens": config.tokens}
    facts = query_only_facts.facts(arrays)
    query_only_report.draw(arrays, facts, out_dir)
    return Outcome(
        arrays=arrays,
        report=query_only_report.report(arrays, facts, config),
        summary=query_only_report.summary(facts),
        data_checksums={},
        seeds=[SEED],
    )


@functools.cache
def _kernels(config: Config) -> dict[str, Any]:
    return {"softmax": nn.softmax(), "gaussian": nn.gaussian(config.bandwidth)}


class Draw(NamedTuple):
    """What is random of problems at one D, along the axis of seeds."""

    layer: theory.AttentionLayer
    inputs: Any
    ways: Any


def draws(config: Config, dim: int) -> Draw:
    """The draws of all seeds, by numpy; weights N(0, 1/fan-in), ways of length 1."""
    rng = np.random.default_rng([SEED, dim])
    square, outward = (1, dim, config.head_dim), (1, config.head_dim, config.outputs)
    weights = [
        jnp.asarray(rng.normal(size=(config.seeds, *shape)) / np.sqrt(shape[1]))
        for shape in (square, square, square, outward)
    ]
    inputs = rng.normal(size=(config.seeds, 1, config.tokens, dim))
    ways = rng.normal(size=(config.seeds, config.tokens, config.outputs))
    ways /= np.linalg.norm(ways, axis=2, keepdims=True)
    return Draw(theory.AttentionLayer(*weights), jnp.asarray(inputs), jnp.asarray(ways))


def problem(draw: Draw, scale: Any, distance: Any) -> tuple[theory.AttentionLayer, Any, Any]:
    """The parameters at the start, and the values [n c] and targets [n c] of the one sample."""
    layer = draw.layer._replace(query=scale * draw.layer.query, key=scale * draw.layer.key)
    values = (draw.inputs @ layer.value[0] @ layer.output[0])[0]
    middle = jnp.broadcast_to(jnp.mean(values, axis=0, keepdims=True), values.shape)
    spread = jnp.sqrt(jnp.mean(jnp.sum((values - middle) ** 2, axis=1)))
    return layer, values, middle + distance * spread * draw.ways


def _everywhere(function: Any, config: Config, dim: int) -> Any:
    """A function of (draw, scale, distance) at every one of them: [scales, distances, seeds]."""
    seeds = jax.vmap(function, in_axes=(0, None, None))
    distances = jax.vmap(seeds, in_axes=(None, None, 0))
    over = jax.jit(jax.vmap(distances, in_axes=(None, 0, None)))
    return over(draws(config, dim), jnp.asarray(config.scales), jnp.asarray(config.distances))


def _ends(config: Config, dim: int, name: str) -> np.ndarray:
    """The least last risk over the ladder, over |y|^2/2: [scales, distances, seeds]."""
    kernel = _kernels(config)[name]

    def one(draw, scale, distance):
        layer, values, targets = problem(draw, scale, distance)
        size = jnp.mean(jnp.sum(values**2, axis=1))
        unit = 1 / (jnp.sum(draw.inputs**2) * size)

        def last(step):
            options = {"trained": ["query"], "steps": config.steps, "constants": False}
            data = (draw.inputs, targets[None])
            run = theory.layer_descent(kernel, layer, *data, step=step * unit, **options)
            return run.risks[-1]

        ends = jax.vmap(last)(jnp.asarray(config.ladder))
        # A step too long may end in infinity or NaN: then another step's end counts.
        return jnp.min(jnp.nan_to_num(ends, nan=jnp.inf)) / (jnp.sum(targets**2) / 2)

    return np.asarray(_everywhere(one, config, dim))


def _out_of_reach(config: Config, dim: int, rows: str) -> np.ndarray:
    """Whether a target is certified to stay above the threshold: [scales, distances, seeds]."""
    values, targets = (
        np.asarray(each, float) for each in _everywhere(lambda *at: problem(*at)[1:], config, dim)
    )
    distance = theory.hull_distance if rows == "simplex" else theory.zonotope_distance
    found = np.empty(values.shape[:3], bool)
    for index in np.ndindex(found.shape):
        least = sum(distance(values[index], row)[0] ** 2 for row in targets[index]) / 2
        found[index] = least > config.tolerance * np.sum(targets[index] ** 2) / 2
    return found
