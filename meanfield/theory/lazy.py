r"""From the rich to the lazy regime: output scale, linearised model, linearised flow.

With an output scale alpha, the model alpha (f(theta) - f(theta_0)) and the loss / alpha^2, the flow
tends as alpha -> infinity, at order 1/alpha, to that of the linearised model

    f_lin(x; theta) = f(x; theta_0) + Df(x; theta_0) (theta - theta_0).

For the squared loss |f - y|^2 / 2 and a decay that acts on all parameters alike, with rate mu =
lambda s d (time scale times decay scale),

    dtheta/dtau = -s D*(f_lin - y) / N - mu theta

is solved through the eigenvectors of the tangent kernel K = D s D*, D = Df(X; theta_0). With
A = K/N, phi(a, t) = (1 - exp(-a t)) / a and u_0 = D theta_0,

    c(t)     = -[phi(A + mu, t) (f_0 - y - u_0) + exp(-mu t) phi(A, t) u_0] / N
    theta(t) = exp(-mu t) theta_0 + s D* c(t)
    f(x, t)  = f_0(x) + (exp(-mu t) - 1) Df(x) theta_0 + K(x, X) c(t)

(theta(t) solves the flow if c' = -(A + mu) c - (f_0 - y - u_0 + exp(-mu t) u_0) / N).

One trap: decay pulls theta to 0, not to theta_0, by an amount that does not fall with alpha: a flow
with weight decay is not lazy for long, and its linearised twin is no longer near it.

References:
    Chizat, Oyallon and Bach 2019, arXiv 1812.07956 (output scale; eq. (3), Theorem 2.3).
    Jacot et al. 2018, arXiv 1806.07572; Lee et al. 2019, arXiv 1902.06720 (linearised flow).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from meanfield.checks import finite, non_negative, positive
from meanfield.notation import Scalar
from meanfield.theory.kernel_regime import square_matrix
from meanfield.theory.tangent import Scales, scales_of, tangent_kernel

Apply = Callable[[Any, Any], Any]


class OutputScale(NamedTuple):
    """A model and its loss at one output scale; two functions.

    Attributes:
        apply: (theta, sample) -> alpha (f(theta) - f(theta_0)).
        loss: (output, target) -> loss / alpha^2.
    """

    apply: Apply
    loss: Callable[[Any, Any], Any]


class LinearisedFlow(NamedTuple):
    """Predictions of the linearised flow, one row per time.

    Attributes:
        train: At the training inputs, outputs in the shape of the targets.
        test: At the other inputs, or None.
        eigenvalues: Of the tangent kernel, ascending; modes decay at rates eigenvalue / N + mu.
    """

    train: Float[Array, "t b ..."]
    test: Float[Array, "t e ..."] | None
    eigenvalues: Float[Array, "p"]


def output_scale(
    apply: Apply, loss: Callable[[Any, Any], Any], theta: PyTree, alpha: float | Scalar, /
) -> OutputScale:
    """The model centred at its start and multiplied by alpha, with the loss that belongs to it.

    Train it by ``flow.empirical_risk(scaled.apply, inputs, targets, loss=scaled.loss)`` from
    ``theta``: small alpha is rich, large alpha lazy, in one and the same time.

    Args:
        apply: The model's map (theta, sample) -> output.
        loss: (output, target) -> number, such as ``flow.square``.
        theta: Parameters theta_0 at the start.
        alpha: The output scale.

    Raises:
        ValueError: If ``alpha`` is not positive.

    References:
        Chizat, Oyallon and Bach 2019, arXiv 1812.07956.

    >>> scaled = output_scale(lambda theta, x: theta * x, lambda f, y: f - y, 1.0, 10.0)
    >>> scaled.apply(3.0, 1.0), scaled.loss(20.0, 0.0)
    (20.0, 0.2)
    """
    if not isinstance(alpha, Tracer):
        positive("alpha", float(alpha))

    def scaled(at: PyTree, sample: Any) -> Any:
        return alpha * (apply(at, sample) - apply(theta, sample))

    return OutputScale(scaled, lambda output, target: loss(output, target) / alpha**2)


def linearised(apply: Apply, theta: PyTree, /) -> Apply:
    """The model's linearisation at theta, affine in the parameters: for any loss and any training.

    Args:
        apply: The model's map (theta, sample) -> output.
        theta: Parameters theta_0 at which it is linearised.

    Returns:
        The map (theta, sample) -> f(theta_0) + Df(theta_0) (theta - theta_0).

    References:
        Lee et al. 2019, arXiv 1902.06720.

    >>> float(linearised(lambda theta, x: x * theta**2, jnp.array(1.0))(jnp.array(3.0), 2.0))
    10.0
    """

    def tangent(at: PyTree, sample: Any) -> Any:
        value, change = _along(apply, theta, jax.tree.map(jnp.subtract, at, theta), sample)
        return value + change

    return tangent


def linearised_flow(
    apply: Apply,
    theta: PyTree,
    inputs: PyTree,
    targets: Float[Array, "b ..."],
    ts: Any,
    /,
    *,
    test: PyTree = None,
    time_scales: Scales = None,
    decay_scales: Scales = None,
    weight_decay: float = 0.0,
    chunk: int | None = None,
) -> LinearisedFlow:
    """The gradient flow of the linearised model under the squared loss, in closed form.

    It is the flow of the energy of :func:`linearised`, started at ``theta``. With an output scale,
    a loss / alpha^2 is a time ts / alpha^2 and a decay alpha^2 lambda.

    Args:
        apply: The model's map (theta, sample) -> output.
        theta: Parameters theta_0.
        inputs: Training samples along the leading axis of every leaf.
        targets: Their targets, in the shape of the outputs.
        ts: Times, from 0.
        test: Other samples to predict.
        time_scales: From theta, the factor s of each branch; 1 if None, 0 where it is held fixed.
        decay_scales: From theta, the weight d of each branch; 1 if None.
        weight_decay: The constant lambda.
        chunk: Samples whose Jacobians are held at once; all if None.

    Raises:
        ValueError: If shapes differ, a time is negative, or s d differs where there is decay.

    References:
        Lee et al. 2019, arXiv 1902.06720.

    >>> found = linearised_flow(jnp.multiply, jnp.zeros(()), jnp.ones(1), jnp.ones(1), [0.0, 1.0])
    >>> round(float(found.train[1, 0]), 4)
    0.6321
    """
    scales = scales_of(time_scales, theta)
    rate = _decay_rate(scales, scales_of(decay_scales, theta), weight_decay)
    kernel = functools.partial(tangent_kernel, apply, theta, time_scales=time_scales, chunk=chunk)
    start, pull = _start_and_pull(apply, theta, inputs, scales)
    _check_targets(targets, start)
    times, own = jnp.asarray(_times(ts), start.dtype), kernel(inputs)
    modes, drift = jnp.linalg.eigh(square_matrix(own)), jnp.expm1(-rate * times)[:, None]
    weights = _coefficients(modes, start - targets, pull, times, rate)
    weights = weights.reshape(len(times), *own.shape[2:])
    there = None
    if test is not None:
        away = _start_and_pull(apply, theta, test, scales)
        there = _predictions(kernel(test, inputs), weights, drift, *away)
    return LinearisedFlow(_predictions(own, weights, drift, start, pull), there, modes[0])


def _predictions(kernel: Any, coefficients: Any, drift: Any, start: Any, pull: Any) -> Any:
    moved = jnp.einsum("bcef,tef->tbc", kernel, coefficients).reshape(len(drift), -1)
    drifted = drift * jnp.ravel(pull)[None] + jnp.ravel(start)[None]
    return (moved + drifted).reshape(len(drift), *start.shape)


def _coefficients(modes, residual, pull, times, mu):
    # c(t): times as rows; first in the eigenvectors of K, then back.
    (eigenvalues, vectors), samples = modes, len(residual)
    residual, pull = (jnp.ravel(vector) @ vectors for vector in (residual, pull))

    def phi(a):
        product = a[None] * times[:, None]
        safe = jnp.where(product == 0, 1, product)  # phi tends to t where a t = 0.
        return times[:, None] * jnp.where(product == 0, 1, -jnp.expm1(-safe) / safe)

    rates = eigenvalues / samples
    free = phi(rates + mu) * (residual - pull)[None]
    decayed = jnp.exp(-mu * times)[:, None] * phi(rates) * pull[None]
    return -(free + decayed) @ vectors.T / samples


def _start_and_pull(apply: Apply, theta: PyTree, inputs: PyTree, scales: list) -> tuple[Any, Any]:
    leaves, structure = jax.tree.flatten(theta)
    # Parameters held fixed do not decay either.
    moving = [bool(scale) * leaf for scale, leaf in zip(scales, leaves, strict=True)]
    return _outputs(apply, theta, structure.unflatten(moving), inputs)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(apply, theta, direction, inputs):
    return jax.vmap(functools.partial(_along, apply, theta, direction))(inputs)


def _along(apply: Apply, theta: PyTree, direction: PyTree, sample: Any) -> tuple[Any, Any]:
    return jax.jvp(lambda theta: apply(theta, sample), (theta,), (direction,))


def _decay_rate(scales: list, decays: list, weight_decay: float) -> float:
    non_negative("weight_decay", weight_decay)
    products = [float(s * d) for s, d in zip(scales, decays, strict=True) if s]
    if not products:
        raise ValueError("time_scales must be > 0 somewhere, got 0 for all parameters")
    if weight_decay and not np.allclose(products, products[0], rtol=1e-9, atol=0):
        raise ValueError(
            "the decay must act alike on all parameters that train (time scale times decay scale), "
            f"got factors from {min(products)} to {max(products)}; give decay_scales of 1 / "
            "time_scales, or train the model of linearised() by gradient_flow"
        )
    return weight_decay * products[0]


def _check_targets(targets: Any, outputs: Any) -> None:
    if (shape := outputs.shape) != targets.shape:
        raise ValueError(f"targets must have the outputs' shape {shape}, got {targets.shape}")
    finite("targets", targets)


def _times(ts: Any) -> np.ndarray:
    times = np.asarray(ts, float)
    if times.ndim != 1 or not times.size or not np.all(np.isfinite(times) & (times >= 0)):
        raise ValueError(
            f"ts must be a vector of finite times >= 0, at least one, got {times.tolist()}"
        )
    return times
