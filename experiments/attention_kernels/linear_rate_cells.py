"""Runs of ``linear_rate`` at one size, each held against its bounds and its ball test.

One trap: problems are drawn by numpy, because a draw of jax costs each size a program.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import theory
from meanfield.theory.ball_test import norms_test
from meanfield.theory.layer_norms import layer_norms

ALL = ("query", "key", "value")
NOTHING = theory.ObservedRate(np.nan, np.nan, np.nan, 0)


def ratio(config: Any, size: tuple[int, ...]) -> float:
    """HD/(Nn) of a size (N, D, H)."""
    samples, dim, heads = size
    return heads * dim / (samples * config.tokens)


def kernels(config: Any) -> dict[str, Any]:
    """The two kernels, with their Lipschitz constants."""
    return {
        "softmax": theory.SoftmaxKernel(),
        "gaussian": theory.GaussianKernel(bandwidth=config.bandwidth),
    }


def problems(config: Any, size: tuple[int, ...]) -> tuple:
    """Layers, inputs and targets of all seeds."""
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


def cells(config: Any, size: tuple[int, int, int], *, together: bool) -> dict[str, Any]:
    """What was measured of one size, by kernel: of W^V alone, and of all three if asked for."""
    given = problems(config, size)
    pair = kernels(config)
    value = _descent(pair, ("value",), config.steps, theory.rate_constants)
    every = _descent(pair, ALL, config.steps_all, theory.smoothness)
    found = {}
    for name, kernel in pair.items():
        run = value(name, given)
        constants, features = run[0], run[3]
        unfitted = [_unfitted(*each) for each in zip(features, np.asarray(given[2]), strict=True)]
        about = {"ratio": ratio(config, size), "size": np.array(size)}
        alone = about | {
            "rows": size[0] * config.tokens,
            "rank": constants.rank,
            "pl": constants.pl,
            "smoothness": constants.smoothness,
            "unfitted": np.array(unfitted),
            "value": _measured(run, _tests(kernel, features, given, moving=False)),
        }
        found[name] = alone, {}
        if together:
            starts = {"all": given, "sufficient": _loud(config, kernel, given)}
            runs = {start: every(name, each) for start, each in starts.items()}
            found[name] = (
                alone,
                about
                | {
                    start: _measured(runs[start], _tests(kernel, runs[start][3], each, moving=True))
                    for start, each in starts.items()
                },
            )
    return found


def _descent(pair: dict[str, Any], trained: tuple[str, ...], steps: int, constants: Any) -> Any:
    """Descent of all problems under one of two kernels, by its name."""

    def one(gaussian, layer, inputs, targets):
        # One program for both kernels: compiling it takes longer than running it.
        def kernel(queries, keys):
            return jnp.where(gaussian, *(pair[k](queries, keys) for k in ("gaussian", "softmax")))

        found = constants(kernel, layer, inputs, targets, trained=trained)
        step = found.step if trained == ("value",) else 0.5 / found
        options = {"step": step, "steps": steps, "trained": trained}
        run = theory.layer_descent(kernel, layer, inputs, targets, **options)
        return found, step, run, theory.attention_features(kernel, layer, inputs)

    program = jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0)))
    return lambda name, given: jax.tree.map(np.asarray, program(name == "gaussian", *given))


def _seed(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _tests(kernel: Any, features: Any, given: tuple, *, moving: bool) -> list[theory.BallTest]:
    """The ball test of every problem, from features that a run has found already."""
    norms = [layer_norms(each, *_seed(given, i)) for i, each in enumerate(features)]
    return [norms_test(each, kernel.lipschitz, share=1.0, moving=moving) for each in norms]


def _loud(config: Any, kernel: Any, given: tuple) -> tuple:
    """The same data, each with a start of the same size that passes the ball test."""
    layer, inputs, targets = given
    options = {"heads": layer.query.shape[1], "head_dim": config.head_dim, "scale": config.scale}
    starts = [
        theory.sufficient_start(jax.random.key(i), kernel, inputs[i], targets[i], **options)[0]
        for i in range(len(inputs))
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), inputs, targets


def _unfitted(features: np.ndarray, targets: np.ndarray) -> float:
    """The least risk of any W^V: the part of the targets outside the range of B."""
    flat = targets.reshape(-1, targets.shape[-1])
    fitted = np.linalg.lstsq(features.reshape(len(flat), -1), flat, rcond=None)[0]
    return float(np.sum((features.reshape(len(flat), -1) @ fitted - flat) ** 2) / 2)


def _measured(found: tuple, tests: list[theory.BallTest]) -> dict[str, Any]:
    """One kind of run against its bounds, seeds along the first axis, saved at 200 iterates."""
    _, steps, run, _ = found
    runs = [(_seed(run, i), float(step)) for i, step in enumerate(steps)]
    checked = [theory.rate_check(each, step=step) for each, step in runs]
    balls = [
        theory.ball_check(test, each, step=step)
        for test, (each, step) in zip(tests, runs, strict=True)
    ]
    kept = np.unique(np.geomspace(1, run.risks.shape[1], 200).round().astype(int)) - 1
    first = np.where(run.sigma[:, 0] > 0, run.sigma[:, 0], 1)
    firsts = [(ball.left, ball.strayed, ball.thinned) for ball in balls]
    return {
        "times": kept,
        "risks": run.risks[:, kept],
        "bounds": np.stack([check.bound[kept] for check in checked]),
        "violations": np.array([check.violations for check in checked]),
        "refused": np.array([check.refused for check in checked]),
        "predicted": np.array([check.predicted for check in checked]),
        "observed": np.array([tuple(check.observed or NOTHING)[:3] for check in checked]),
        "sigma": np.min(run.sigma, axis=1) / first,
        "passes": np.array([test.passes for test in tests]),
        "margin": np.array([test.margin for test in tests]),
        "certified": np.array([ball.rate.predicted for ball in balls]),
        "excess": np.array([ball.rate.violations for ball in balls]),
        "contradicted": np.array([ball.contradicted for ball in balls]),
        # The first iterates outside the ball, on too long a path, with sigma(B) below half.
        "firsts": np.array([[np.nan if at is None else at for at in row] for row in firsts]),
        "used": np.array([ball.used for ball in balls]),
    }


def smallest_starts(config: Any, sizes: list[tuple[int, ...]]) -> dict[str, Any]:
    """The smallest H of each scheme and kernel, by N and D: (rank, ball, tried, margin, gain)."""
    found = {}
    for size in sizes:
        samples, dim, _ = size
        inputs, targets = (each[0] for each in problems(config, size)[1:])
        options = {"head_dim": config.head_dim}
        most = 4 * -(-samples * config.tokens // dim)
        schemes = {
            "random": (theory.random_start(config.scale), np.nan),
            "silent": (theory.silent_start(config.scale, gain=1e3), 1e3),
        }
        for name, kernel in kernels(config).items():
            given = jax.random.key(1), kernel, inputs, targets
            for scheme, (start, gain) in schemes.items():
                search = theory.smallest_heads(*given, start=start, most=most, **options)
                best = max(each.margin for each in search.tries)
                row = [search.rank, search.heads, search.tries[-1].heads, best, gain]
                found[f"{samples}; {dim}; {scheme}; {name}"] = np.array(row, float)
            layer, test = theory.sufficient_start(*given, scale=config.scale, **options)
            heads, gain = len(layer.value), np.linalg.norm(layer.output[0], 2)
            row = [heads, heads, heads, test.margin, gain]
            found[f"{samples}; {dim}; gain chosen; {name}"] = np.array(row, float)
    return found
