r"""Success of training W^Q alone, softmax against Gaussian, on the same random problems.

One sample of n tokens, one head; W^K, W^V, W^O fixed and random, W^Q trained from a random start of
a given scale. With u_b the values, three families of targets:

    middle     y_a = mean_b u_b + distance * rms_b |u_b - mean u| * (a random direction)
    origin     y_a = distance * rms_b |u_b| * (a random direction)
    teacher    y = the output of another W^Q, random, under softmax or under the Gaussian kernel

None is neutral. The middle is what softmax puts out at its own start, if scales are small; the
origin is where the Gaussian kernel starts if they are large; a teacher can be met by its own kernel
for certain. Rows of softmax stay in the convex hull of the values, those of the Gaussian kernel in
{sum w_b u_b, 0 <= w <= 1}: what is beyond is out of reach.
Each kernel runs every problem with every step of one ladder, and its best end counts: success is
f_T <= tolerance * |y|^2/2, the same threshold for both kernels. A problem that either
of them begins below it is left out for both.

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
from meanfield.kept import NOTHING, Kept

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
    families: tuple[str, ...] = ("middle", "origin", "teacher")
    """Families of targets: middle (next to where softmax starts at small scales, so not neutral),
    origin (where the Gaussian kernel starts at large ones), teacher (of each kernel in turn)."""
    distances: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    """Distances of targets from the middle, in units of the values' spread, or from the origin, in
    units of their size."""
    teacher: float = 1.0
    """Standard deviation of the teacher's W^Q, times the root of D."""
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
    seeds: int = 240
    """Random problems of each cell, all from one seed."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("tokens", "head_dim", "outputs", "steps"):
            checks.count(name, getattr(self, name))
        checks.count("seeds", self.seeds, least=2)
        for name in ("bandwidth", "tolerance", "teacher"):
            checks.positive(name, getattr(self, name))
        for name in self.families:
            checks.choice("families", name, query_only_facts.FAMILIES)
        if not self.families or len(set(self.families)) < len(self.families):
            raise ValueError(f"families must be one or more, each once, got {self.families}")
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


def run(config: Config, *, out_dir: Path, progress: bool, kept: Kept = NOTHING) -> Outcome:
    """Runs both kernels on every problem of every cell, compares, draws and reports."""
    jobs = [(dim, kernel) for dim in reversed(config.dims) for kernel in query_only_facts.KERNELS]
    ends = side_by_side(
        lambda job: _ends(config, *job),
        jobs,
        keep=kept.members("program"),
        label="programs" if progress else None,
    )
    found = dict(zip(jobs, ends, strict=True))
    outside = {
        rows: np.stack([
            kept.member(f"{rows}, {dim}", functools.partial(_out_of_reach, config, dim, rows))
            for dim in config.dims
        ])
        for rows in query_only_facts.ROWS.values()
    }  # fmt: skip
    ends = {
        kernel: np.stack([found[dim, kernel] for dim in config.dims], axis=1)
        for kernel in query_only_facts.KERNELS
    }
    arrays: dict[str, Any] = {name: np.array(getattr(config, name)) for name in ("dims", "scales")}
    arrays |= {"tolerance": config.tolerance, "tokens": config.tokens}
    first = 0
    for family in config.families:
        levels = np.array(query_only_facts.levels(family, config.distances))
        here, first = slice(first, first + len(levels)), first + len(levels)
        arrays[family] = {
            "levels": levels,
            "first": {kernel: ends[kernel][0][:, :, here] for kernel in ends},
            "last": {kernel: ends[kernel][1][:, :, here] for kernel in ends},
            "out of reach": {rows: outside[rows][:, :, here] for rows in outside},
        }
    facts = query_only_facts.facts(arrays)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=query_only_report.report(arrays, facts, config),
        summary=query_only_report.summary(facts),
        data_checksums={},
        seeds=[SEED],
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    query_only_report.draw(arrays, query_only_facts.facts(arrays), out_dir)


@functools.cache
def _kernels(config: Config) -> dict[str, Any]:
    return {"softmax": nn.softmax(), "gaussian": nn.gaussian(config.bandwidth)}


class Draw(NamedTuple):
    """What is random of problems at one D, along the axis of seeds."""

    layer: theory.AttentionLayer
    inputs: Any
    ways: Any
    teacher: Any


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
    teacher = rng.normal(size=(config.seeds, *square)) / np.sqrt(dim)
    return Draw(theory.AttentionLayer(*weights), *map(jnp.asarray, (inputs, ways, teacher)))


def problem(config: Config, draw: Draw, scale: Any) -> tuple[theory.AttentionLayer, Any, Any]:
    """The parameters at the start, the values [n c], and targets of all families [levels n c]."""
    layer = draw.layer._replace(query=scale * draw.layer.query, key=scale * draw.layer.key)
    values = (draw.inputs @ layer.value[0] @ layer.output[0])[0]
    middle = jnp.broadcast_to(jnp.mean(values, axis=0, keepdims=True), values.shape)
    taught = layer._replace(query=config.teacher * draw.teacher)
    found = []
    for family in config.families:
        if family == "teacher":
            kernels = _kernels(config).values()
            found += [theory.attention_output(each, taught, draw.inputs)[0] for each in kernels]
            continue
        centre = middle if family == "middle" else jnp.zeros_like(middle)
        size = jnp.sqrt(jnp.mean(jnp.sum((values - centre) ** 2, axis=1)))
        found += [centre + distance * size * draw.ways for distance in config.distances]
    return layer, values, jnp.stack(found)


def _everywhere(function: Any, config: Config, dim: int) -> Any:
    """A function of (draw, scale) at every one of them: leaves [scales, seeds, ...]."""
    seeds = jax.vmap(function, in_axes=(0, None))
    over = jax.jit(jax.vmap(seeds, in_axes=(None, 0)))
    return jax.tree.map(np.asarray, over(draws(config, dim), jnp.asarray(config.scales)))


def _ends(config: Config, dim: int, name: str) -> np.ndarray:
    """First risk, and the least last over the ladder, over |y|^2/2: [2, scales, levels, seeds]."""
    kernel = _kernels(config)[name]

    def one(draw, scale):
        layer, values, targets = problem(config, draw, scale)
        unit = 1 / (jnp.sum(draw.inputs**2) * jnp.mean(jnp.sum(values**2, axis=1)))

        def risks(target, step):
            options = {"trained": ["query"], "steps": config.steps, "constants": False}
            data = (draw.inputs, target[None])
            run = theory.layer_descent(kernel, layer, *data, step=step * unit, **options)
            return run.risks[jnp.array([0, -1])] / (jnp.sum(target**2) / 2)

        ladder = jax.vmap(risks, in_axes=(None, 0))
        found = jax.vmap(ladder, in_axes=(0, None))(targets, jnp.asarray(config.ladder))
        # A step too long may end in infinity or NaN: then another step's end counts.
        return jnp.min(jnp.nan_to_num(found, nan=jnp.inf), axis=1)

    return np.moveaxis(_everywhere(one, config, dim), (0, 1, 2, 3), (1, 3, 2, 0))


def _out_of_reach(config: Config, dim: int, rows: str) -> np.ndarray:
    """Whether a target is certified to stay above the threshold: [scales, levels, seeds]."""
    values, targets = _everywhere(lambda *at: problem(config, *at)[1:], config, dim)
    distance = theory.hull_distance if rows == "simplex" else theory.zonotope_distance
    targets = np.moveaxis(targets, 2, 1)
    found = np.empty(targets.shape[:3], bool)
    for scale, level, seed in np.ndindex(found.shape):
        wanted = targets[scale, level, seed]
        least = sum(distance(values[scale, seed], row)[0] ** 2 for row in wanted) / 2
        found[scale, level, seed] = least > config.tolerance * np.sum(wanted**2) / 2
    return found
