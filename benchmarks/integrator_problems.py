r"""Gradient flows to integrate: stiff least squares, in-context regression, digits.

    stiffness of a horizon = lambda tau,    lambda = sharpness at tau in the metric of s

One trap: the horizon follows from a measured sharpness, so it differs from seed to seed; what is
held fixed is the stiffness.
"""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from meanfield import flow, nn, tasks

SAVES = 7


class Problem(NamedTuple):
    """A flow to integrate.

    Attributes:
        name: How the record calls it.
        title: How a figure calls it.
        family: Problems of one family share their compiled programs.
        field: The right-hand side.
        predict: From theta to what is predicted.
        start: Parameters at time 0.
        horizon: The time to reach.
        peak: Largest sharpness met up to the horizon, as far as a pilot solve saw.
        fall_time: Energy at the start over the rate at which it falls there.
        exact: The solution in closed form, or None.
        sha256: Checksum of the data, if it is a data set.
    """

    name: str
    title: str
    family: str
    field: flow.GradientField
    predict: Partial
    start: PyTree
    horizon: float
    peak: float
    fall_time: float
    exact: PyTree | None
    sha256: str | None = None


def least_squares(dim: int, condition: float, /, *, key: Any) -> Problem:
    """(a): (1/2) |A (theta - target)|^2 with log-spaced eigenvalues of A^T A, to 1 / the least one.

    A is a diagonal after a reflection: a product costs O(dim), so dim can be that of a network.
    """
    keys = jax.random.split(key, 2)
    axis = jax.random.normal(keys[0], (dim,))
    axis = axis / jnp.linalg.norm(axis)
    target = jax.random.normal(keys[1], (dim,))
    values = jnp.geomspace(1 / condition, 1.0, dim)
    start = jnp.zeros(dim)
    left = _reflected(axis, jnp.exp(-values * condition) * _reflected(axis, start - target))
    field = flow.gradient_field(Partial(_quadratic, axis, values, target))
    return Problem(
        name="least_squares",
        title=f"(a) least squares, {dim} dimensions",
        family="least_squares",
        field=field,
        predict=Partial(_residuals, axis, values, target),
        start=start,
        horizon=condition,
        peak=1.0,
        fall_time=_fall_time(field, start),
        exact=target + left,
    )


def first_step(problem: Problem, rtol: float, /) -> float:
    """The first step of every adaptive method, by the rule of ``gradient_flow``: one gradient."""
    return min(2 * rtol ** (1 / 3) * problem.fall_time, problem.horizon)


def _fall_time(field, start):
    return float(field.energy(start) / field.velocity(start)[1])


def _reflected(axis, vector):
    return vector - 2 * axis * (axis @ vector)


def _residuals(axis, values, target, theta):
    return jnp.sqrt(values) * _reflected(axis, theta - target)


def _quadratic(axis, values, target, theta):
    return jnp.sum(_residuals(axis, values, target, theta) ** 2) / 2


def regression(config: Any, /) -> list[Problem]:
    """(b) and (d): in-context regression by a mean-field Transformer, to several stiffnesses."""
    keys = jax.random.split(jax.random.key(config.seed), 2)
    prompts = tasks.in_context_regression(
        keys[0], config.prompts, context=config.context, dim=config.dim, noise=config.noise
    )
    network = nn.network(
        (nn.attention(dim=config.dim + 1, head_dim=config.head_dim), nn.mlp(dim=config.dim + 1)),
        depth=config.depth,
    )
    model = nn.model(nn.identity(), network, nn.label_read())
    risk = flow.empirical_risk(model.apply, prompts.tokens, prompts.labels)
    energy = flow.energy(risk, model.decay_scales, weight_decay=config.weight_decay)
    field = flow.gradient_field(energy, model.time_scales)
    start = model.init(keys[1], width=config.width)
    predict = Partial(_predictions, Partial(model.apply), prompts.tokens)
    wanted = {
        "regression_short": ("(b) in-context regression", config.stiffness),
        "regression_long": ("(b) in-context regression", config.long_stiffness),
        "nonstiff": ("(d) in-context regression, not stiff", config.mild_stiffness),
    }
    chosen = {name: wanted[name] for name in wanted if name in config.problems}
    return _with_horizons(chosen, "regression", field, predict, start)


def _predictions(apply, inputs, theta):
    return jax.vmap(apply, in_axes=(None, 0))(theta, inputs)


def digits(config: Any, /) -> list[Problem]:
    """(c): digits classified by a small Vision Transformer with cross-entropy."""
    pixels, labels, sha256 = _digits(config.images)
    network = nn.network(
        (nn.attention(dim=config.vit_dim, head_dim=config.head_dim), nn.mlp(dim=config.vit_dim)),
        depth=config.depth,
    )
    model = nn.model(
        nn.patches(shape=(8, 8, 1), patch=4, dim=config.vit_dim),
        network,
        nn.class_read(dim=config.vit_dim, classes=10),
    )
    risk = flow.empirical_risk(model.apply, pixels, labels, loss="cross_entropy")
    energy = flow.energy(risk, model.decay_scales, weight_decay=config.weight_decay)
    field = flow.gradient_field(energy, model.time_scales)
    start = model.init(jax.random.key(config.seed), width=config.vit_width)
    predict = Partial(_predictions, Partial(model.apply), pixels)
    wanted = {"digits": ("(c) digits, cross-entropy", config.digits_stiffness)}
    found = _with_horizons(wanted, "digits", field, predict, start)
    return [problem._replace(sha256=sha256) for problem in found]


def _digits(images: int):
    """The first images of scikit-learn's digits, standardised, in double precision."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    raw = pixels.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()
    pixels = np.reshape(pixels[:images], (-1, 8, 8, 1))
    standard = (pixels - pixels.mean()) / pixels.std()
    return jnp.asarray(standard), labels[:images], hashlib.sha256(raw).hexdigest()


def sharpness(field: flow.GradientField, theta: PyTree) -> float:
    """The largest eigenvalue of the Hessian of the energy in the flow's metric."""
    return float(_called(flow.sharpness(field), theta).largest)


@jax.jit
def _called(function, argument):
    return function(argument)


def _with_horizons(wanted, family, field, predict, start):
    """One problem per wanted stiffness, its horizon found along a pilot solve."""
    most = max(stiffness for _, stiffness in wanted.values())
    times, values = _pilot(field, start, most)
    products = times * values
    problems = []
    for name, (title, stiffness) in wanted.items():
        after = int(np.argmax(products >= stiffness))
        # Between two saves the stiffness is close to a power of the time.
        share = np.log(stiffness / products[after - 1]) / np.log(
            products[after] / products[after - 1]
        )
        horizon = float(times[after - 1] * (times[after] / times[after - 1]) ** share)
        problems.append(
            Problem(
                name=name,
                title=f"{title}, λτ ≈ {stiffness:.0e}",
                family=family,
                field=field,
                predict=predict,
                start=start,
                horizon=horizon,
                peak=float(values[: after + 1].max()),
                fall_time=_fall_time(field, start),
                exact=None,
            )
        )
    return problems


def _pilot(field, start, most):
    """Times and sharpnesses along the flow, until their product exceeds the most wanted."""
    observe = {"leaves": jax.tree.leaves}
    values = [sharpness(field, start)]
    times, theta = [0.0], start
    stop = 1 / values[0]
    while times[-1] * values[-1] < most:
        ts = np.concatenate([[times[-1]], np.geomspace(max(times[-1], stop / 16), stop, SAVES)[1:]])
        record = flow.gradient_flow(field, theta, ts, rtol=1e-3, atol=1e-4, observe=observe)
        if record.result != "completed":
            raise ValueError(f"the flow must reach a stiffness of {most:g}, got: {record.message}")
        for index in range(1, SAVES):
            leaves = [jnp.asarray(leaf[index]) for leaf in record.observables["leaves"]]
            theta = jax.tree.unflatten(jax.tree.structure(start), leaves)
            times.append(float(ts[index]))
            values.append(sharpness(field, theta))
        stop *= 4
    return np.array(times), np.array(values)
