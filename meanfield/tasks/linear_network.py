r"""Training of a mean-field linear network, whose infinite-width limit is an ODE of moments.

    f(x) = (1/M) sum_j a_j <b_j, x>,    R = (1/2) E (f(x) - <w, x>)^2 = (1/2) (v - w)^T S (v - w)

with S = E x x^T and v = E_rho[a b]. With g = S (v - w), particles move by

    da/dtau = -<g, b> - lambda a,       db/dtau = -a g - lambda b,

so the second moments A = E a^2, v = E a b, B = E b b^T obey an equation of their own:

    dA/dtau = -2 <g, v> - 2 lambda A,   dv/dtau = -(A + B) g - 2 lambda v,
    dB/dtau = -(g v^T + v g^T) - 2 lambda B.

It holds at every width, which changes nothing but where the moments start.

One trap: v(tau) is not linear in the moments at the start, so the mean over networks of width M
differs from the limit by O(1/M), however many networks there are.

Reference:
    Saxe, McClelland and Ganguli, arXiv 1312.6120 (linear networks with exact training).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from meanfield.checks import count, finite, non_negative


class LinearMoments(NamedTuple):
    """Second moments of the particles (a, b): E a^2, E a b and E b b^T, at one time or at many."""

    outer: Float[Array, "*t"]
    product: Float[Array, "*t d"]
    inner: Float[Array, "*t d d"]


def linear_moments_flow(
    start: LinearMoments,
    covariance: Float[ArrayLike, "d d"],
    target: Float[ArrayLike, " d"],
    ts: Float[ArrayLike, " t"],
    /,
    *,
    weight_decay: float | int = 0.0,
    steps: int = 200,
) -> LinearMoments:
    """Moments along the mean-field gradient flow of a linear network, by the Runge-Kutta method.

    Args:
        start: Moments of rho_0 for the limit, or of the particles of one network for that network.
        covariance: S, the second moments of the inputs.
        target: w, the linear teacher.
        ts: Increasing times, the first that of the start.
        weight_decay: The constant lambda.
        steps: Steps of fourth order between two times.

    Returns:
        The moments at these times. `product` predicts: f(x) = <product, x>.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, times that do not increase,
            a negative weight decay, or too few steps.

    References:
        Saxe, McClelland and Ganguli, arXiv 1312.6120.

    >>> start = LinearMoments(jnp.array(1.0), jnp.array([0.0]), jnp.array([[1.0]]))
    >>> one, ts = jnp.ones(1), jnp.array([0.0, 20.0])
    >>> linear_moments_flow(start, jnp.diag(one), one, ts).product.round(3).tolist()
    [[0.0], [1.0]]
    """
    decay, steps = non_negative("weight_decay", weight_decay), count("steps", steps)
    times, covariance, target = (jnp.asarray(one, float) for one in (ts, covariance, target))
    first = LinearMoments(*(jnp.asarray(leaf, float) for leaf in start))
    _check(first, covariance, target, np.asarray(times))

    def rate(at: LinearMoments) -> LinearMoments:
        pull = covariance @ (at.product - target)
        cross = jnp.outer(pull, at.product)
        return LinearMoments(
            -2 * (pull @ at.product + decay * at.outer),
            -at.outer * pull - at.inner @ pull - 2 * decay * at.product,
            -cross - cross.T - 2 * decay * at.inner,
        )

    def interval(at: LinearMoments, span: Array) -> tuple[LinearMoments, LinearMoments]:
        end = jax.lax.fori_loop(
            0, steps, lambda _, state: _runge_kutta(rate, state, span / steps), at
        )
        return end, end

    _, later = jax.lax.scan(interval, first, jnp.diff(times))
    found = jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), first, later)
    size = found.outer + jnp.trace(found.inner, axis1=-2, axis2=-1)
    _check_falling(linear_risk(found.product, covariance, target) + decay / 2 * size, steps)
    return found


def linear_risk(
    product: Float[ArrayLike, "*t d"],
    covariance: Float[ArrayLike, "d d"],
    target: Float[ArrayLike, " d"],
    /,
) -> Float[Array, "*t"]:
    """Risk (1/2) (v - w)^T S (v - w) of the linear map v, at one time or at many.

    Args:
        product: v, the `product` of moments.
        covariance: S, the second moments of the inputs.
        target: w, the linear teacher.

    >>> float(linear_risk(jnp.array([3.0]), jnp.array([[2.0]]), jnp.array([1.0])))
    4.0
    """
    product = jnp.asarray(product)
    gaps = product - jnp.broadcast_to(jnp.asarray(target), product.shape)
    return jnp.einsum("...i,ij,...j->...", gaps, jnp.asarray(covariance), gaps) / 2


def _runge_kutta(
    rate: Callable[[LinearMoments], LinearMoments], at: LinearMoments, step: Array
) -> LinearMoments:
    """One step of the classical method of fourth order."""

    def moved(slope: LinearMoments, length: Array) -> LinearMoments:
        return jax.tree.map(lambda y, k: y + length * k, at, slope)

    first = rate(at)
    second = rate(moved(first, step / 2))
    third = rate(moved(second, step / 2))
    fourth = rate(moved(third, step))
    return jax.tree.map(
        lambda y, a, b, c, d: y + step / 6 * (a + 2 * b + 2 * c + d),
        at,
        first,
        second,
        third,
        fourth,
    )


def _check_falling(energy: Array, steps: int) -> None:
    # Steps too long for the method raise what the flow lowers, or end in NaN, which is not <=.
    if not (isinstance(energy, Tracer) or (jnp.diff(energy) <= 1e-5 * energy[0]).all()):
        raise ValueError(
            f"steps must be short enough for the energy to fall, got {steps} between two times and "
            f"the energies {energy.tolist()}; raise steps"
        )


def _check(start: LinearMoments, covariance: Array, target: Array, times: np.ndarray) -> None:
    dim = target.size
    shapes = [leaf.shape for leaf in (*start, covariance, target)]
    expected = [(), (dim,), (dim, dim), (dim, dim), (dim,)]
    if shapes != expected:
        raise ValueError(
            f"start, covariance and target must have shapes {expected} for a target of {dim} "
            f"entries, got {shapes}"
        )
    finite("ts", times)
    finite("start", start)
    finite("covariance and target", (covariance, target))
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
        raise ValueError(f"ts must hold at least two increasing times, got {times.tolist()}")
