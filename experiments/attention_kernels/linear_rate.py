r"""Loss against iterations of one attention layer, with the bound of its theorem and the rate seen.

Gradient descent of random layers, softmax and Gaussian, at sizes on both sides of HD = Nn:

    W^V alone           eta = 1/beta,      f_t <= (1 - eta mu)^t f_0
    W^Q, W^K, W^V       eta = 1/(2 beta),  f_t <= prod (1 - eta mu_t) f_0 along the path

Three scans through one size in the middle change H, D or N alone, so HD/(Nn) runs through the
threshold in three ways; all three matrices are trained where H is scanned and HD >= Nn.

One trap: the bound is of the worst direction, and random features are ill-conditioned at the
threshold: the promised rate may be thousands of times slower than the one seen, and both are right.

References:
    Song et al. 2024, arXiv 2411.07538.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.attention_kernels import linear_rate_facts, linear_rate_report
from meanfield import checks, nn, theory

SUMMARY = "Loss of one attention layer against its linear-rate bound, across HD = Nn (Song)."
ALL = ("query", "key", "value")
NOTHING = theory.ObservedRate(np.nan, np.nan, np.nan, 0)

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
        if np.any(np.diff(self.factors) <= 0) or 1.0 not in self.factors:
            raise ValueError(f"factors must increase and hold 1, got {self.factors}")
        for name in linear_rate_facts.AXES:
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
    "tiny": Config(samples=2, dim=2, heads=2, factors=(0.5, 1.0), steps=64, steps_all=16, seeds=3),
    "default": Config(),
}


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Runs descent at every size, checks every iterate against its bound, draws and reports."""
    scans = {
        axis: [tuple(config.sizes(axis, factor).values()) for factor in config.factors]
        for axis in linear_rate_facts.AXES
    }
    wide = [size for size in scans["heads"] if _ratio(config, size) >= 1]
    # The middle is one size of all three scans: it is run once. The longest runs come first.
    sizes = sorted({size for scan in scans.values() for size in scan}, key=lambda n: -np.prod(n))
    jobs = [(size, kernel) for size in sizes for kernel in linear_rate_facts.KERNELS]
    done = []

    def job(item):
        size, kernel = item
        found = _cell(config, size, kernel, together=size in wide)
        done.append(item)
        if progress:
            print(f"\r{len(done)} of {len(jobs)} sizes", end="", flush=True)
        return found

    found = dict(zip(jobs, side_by_side(job, jobs), strict=True))
    arrays: dict[str, Any] = {
        kernel: {
            axis: _stacked([found[size, kernel][0] for size in scan])
            for axis, scan in scans.items()
        }
        | {"all": _stacked([found[size, kernel][1] for size in wide])}
        for kernel in linear_rate_facts.KERNELS
    }
    arrays["starts"] = _starts(config)
    facts = linear_rate_facts.facts(arrays)
    linear_rate_report.draw(arrays, out_dir)
    return Outcome(
        arrays=arrays,
        report=linear_rate_report.report(arrays, facts, config),
        summary=linear_rate_report.summary(facts),
        data_checksums={},
        seeds=list(range(config.seeds)),
    )


def _stacked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: _stacked([row[name] for row in rows])
        if isinstance(rows[0][name], dict)
        else np.stack([row[name] for row in rows])
        for name in rows[0]
    }


def _ratio(config: Config, size: tuple[int, ...]) -> float:
    samples, dim, heads = size
    return heads * dim / (samples * config.tokens)


@functools.cache
def _kernels(config: Config) -> dict[str, Any]:
    return {"softmax": nn.softmax(), "gaussian": nn.gaussian(config.bandwidth)}


def _lipschitz(config: Config) -> dict[str, Any]:
    return {
        "softmax": theory.softmax_lipschitz(),
        "gaussian": theory.gaussian_lipschitz(config.bandwidth),
    }


def _problems(config: Config, size: tuple[int, ...]) -> tuple:
    """Layers, inputs and targets of all seeds, by numpy: a jax draw costs each size a program."""
    samples, dim, heads = size

    def draw(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng([seed, *size])
        square, outward = (heads, dim, config.head_dim), (heads, config.head_dim, config.outputs)
        weights = [
            config.scale * rng.normal(size=shape) / np.sqrt(shape[1])
            for shape in (square, square, square, outward)
        ]
        tokens = (samples, config.tokens)
        return [
            *weights,
            rng.normal(size=(*tokens, dim)),
            rng.normal(size=(*tokens, config.outputs)),
        ]

    drawn = [draw(seed) for seed in range(config.seeds)]
    *weights, inputs, targets = (jnp.asarray(np.stack(leaf)) for leaf in zip(*drawn, strict=True))
    return theory.AttentionLayer(*weights), inputs, targets


def _cell(
    config: Config, size: tuple[int, int, int], name: str, *, together: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was measured of one size and kernel: of W^V alone, and of all three if asked for."""
    kernel = _kernels(config)[name]

    def descent(trained, steps, constants):
        def one(layer, inputs, targets):
            found = constants(kernel, layer, inputs, targets, trained=trained)
            step = found.step if trained == ("value",) else 0.5 / found
            options = {"step": step, "steps": steps, "trained": trained}
            run = theory.layer_descent(kernel, layer, inputs, targets, **options)
            return found, step, run, theory.attention_features(kernel, layer, inputs)

        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(*given))

    given = _problems(config, size)
    constants, steps, run, features = descent(("value",), config.steps, theory.rate_constants)
    unfitted = [_unfitted(*pair) for pair in zip(features, np.asarray(given[2]), strict=True)]
    about = {"ratio": _ratio(config, size), "size": np.array(size)}
    value = about | {
        "rows": size[0] * config.tokens,
        "rank": constants.rank,
        "pl": constants.pl,
        "smoothness": constants.smoothness,
        "unfitted": np.array(unfitted),
        "value": _measured(run, steps),
    }
    if not together:
        return value, {}
    _, steps, run, *_ = descent(ALL, config.steps_all, theory.smoothness)
    return value, about | {"all": _measured(run, steps)}


def _unfitted(features: np.ndarray, targets: np.ndarray) -> float:
    """The least risk of any W^V: the part of the targets outside the range of B."""
    flat = targets.reshape(-1, targets.shape[-1])
    fitted = np.linalg.lstsq(features.reshape(len(flat), -1), flat, rcond=None)[0]
    return float(np.sum((features.reshape(len(flat), -1) @ fitted - flat) ** 2) / 2)


def _measured(run: theory.Descent, steps: np.ndarray) -> dict[str, Any]:
    """One kind of run against its bound, seeds along the first axis, saved at 200 iterates."""
    checked = [
        theory.rate_check(jax.tree.map(lambda leaf, i=i: leaf[i], run), step=float(step))
        for i, step in enumerate(steps)
    ]
    kept = np.unique(np.geomspace(1, run.risks.shape[1], 200).round().astype(int)) - 1
    first = np.where(run.sigma[:, 0] > 0, run.sigma[:, 0], 1)
    return {
        "times": kept,
        "risks": run.risks[:, kept],
        "bounds": np.stack([check.bound[kept] for check in checked]),
        "violations": np.array([check.violations for check in checked]),
        "refused": np.array([check.refused for check in checked]),
        "predicted": np.array([check.predicted for check in checked]),
        "observed": np.array([tuple(check.observed or NOTHING)[:3] for check in checked]),
        "sigma": np.min(run.sigma, axis=1) / first,
    }


def _starts(config: Config) -> dict[str, Any]:
    """The smallest H of two schemes at the size in the middle, by kernel: (rank, ball, tried)."""
    size = (config.samples, config.dim, config.heads)
    inputs, targets = (each[0] for each in _problems(config, size)[1:])
    most = 4 * -(-config.samples * config.tokens // config.dim)
    schemes = {
        "random": theory.random_start(config.scale),
        "silent, gain 1": theory.silent_start(config.scale),
        "silent, gain 1e3": theory.silent_start(config.scale, gain=1e3),
        "silent, gain 1e6": theory.silent_start(config.scale, gain=1e6),
    }
    found = {}
    for scheme, start in schemes.items():
        for name, kernel in _kernels(config).items():
            search = theory.smallest_heads(
                jax.random.key(1), kernel, _lipschitz(config)[name], inputs, targets,
                start=start, head_dim=config.head_dim, most=most,
            )  # fmt: skip
            best = max(each.margin for each in search.tries)
            row = [search.rank or np.nan, search.heads or np.nan, search.tries[-1].heads, best]
            found[f"{scheme}; {name}"] = np.array(row, float)
    return found
