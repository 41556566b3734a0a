r"""Conditions that end a flow before its horizon.

    gradient_below    |grad Q|_s <= bound,        |grad Q|_s^2 = sum s |grad Q|^2 = -dQ/dtau
    risk_below        R(theta) <= bound
    stationary        -dQ/dtau <= rate |Q|

A condition is any function of theta to one truth value, asked after every step.

One trap: |grad Q|_s shrinks at a plateau as well as at a minimum; a condition on it says that the
flow is slow, not that it has arrived.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (21) (|grad Q|_s^2 is the stationarity residual).
"""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import PyTree

from meanfield import checks
from meanfield.flow.gradient import GradientField
from meanfield.flow.observables import observables
from meanfield.flow.risk import as_partial
from meanfield.notation import Risk

Stop = Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]] | None
"""A condition on theta, a dictionary of them of which any one ends the flow, or nothing."""


def gradient_below(field: GradientField, bound: float, /) -> Partial:
    """Whether the gradient has norm |grad Q|_s <= bound in the flow's metric.

    Args:
        field: The field of the flow.
        bound: The norm at which to stop, whose square is energy per unit of time.

    Returns:
        The condition, which costs one gradient after every step.

    Raises:
        ValueError: If the bound is not positive.

    References:
        Gao et al. 2024, arXiv 2410.23610, eq. (21).

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2)
    >>> bool(gradient_below(field, 1.0)(jnp.array(0.6)))
    False
    """
    return Partial(_gradient_below, field, _bound("bound", bound))


def risk_below(risk: Risk, bound: float, /) -> Partial:
    """Whether a risk, or any other number that depends on theta, is at most a bound.

    Args:
        risk: From theta to a number.
        bound: The value at which to stop.

    Returns:
        The condition, which costs one evaluation of the risk after every step.

    Raises:
        ValueError: If the bound is not finite.

    >>> bool(risk_below(lambda theta: theta**2, 1.0)(jnp.array(0.6)))
    True
    """
    checks.finite("bound", bound)
    return Partial(_risk_below, as_partial(risk), jnp.asarray(float(bound)))


def stationary(field: GradientField, rate: float, /) -> Partial:
    """Whether the energy falls by no more than the fraction ``rate`` of itself in a unit of time.

    Args:
        field: The field of the flow.
        rate: The relative rate -dQ/dtau / |Q| at which to stop, per unit of time.

    Returns:
        The condition, which costs one gradient and one energy after every step.

    Raises:
        ValueError: If the rate is not positive.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: 1 + theta**2)
    >>> bool(stationary(field, 0.1)(jnp.array(0.1)))
    True
    """
    return Partial(_stationary, field, _bound("rate", rate))


def _bound(name: str, value: float) -> jax.Array:
    # An array, so that another bound reuses the compiled program.
    return jnp.asarray(checks.positive(name, value))


def _gradient_below(field, bound, theta):
    return field.velocity(theta)[1] <= bound**2


def _risk_below(risk, bound, theta):
    return risk(theta) <= bound


def _stationary(field, rate, theta):
    return field.velocity(theta)[1] <= rate * jnp.abs(field.energy(theta))


def conditions(stop: Stop, theta: PyTree, /) -> dict[str, Partial]:
    """Conditions by name, as a tree that may enter ``jit``; checked, but not evaluated.

    Args:
        stop: A condition, a dictionary of them, or None.
        theta: Parameters.

    Raises:
        ValueError: If one of them gives anything but one truth value.

    >>> list(conditions(risk_below(abs, 1.0), jnp.array(2.0)))
    ['risk_below']
    """
    if stop is None or isinstance(stop, Mapping):
        named = observables(stop)
    else:
        condition = as_partial(stop)
        named = {getattr(condition.func, "__name__", "stop").lstrip("_"): condition}
    for name, condition in named.items():
        values = jax.tree.leaves(_called.eval_shape(condition, theta))
        given = [f"{value.dtype}{list(value.shape)}" for value in values]
        if given != ["bool[]"]:
            raise ValueError(
                f"stop condition {name!r} must give one truth value, got {', '.join(given)}; "
                "compare a number with a bound, as in theta -> risk(theta) <= 0.1"
            )
    return named


# Under jit the shapes are remembered: a second solve traces no condition again.
_called = jax.jit(lambda condition, theta: condition(theta))


def event(stops: dict[str, Partial], parameters: Callable[[Any], PyTree], /) -> Any:
    """Conditions as an event of ``diffrax``; None if there are none.

    Args:
        stops: What :func:`conditions` returned.
        parameters: From the state of the solver to theta.

    >>> event({}, lambda state: state) is None
    True
    """
    if not stops:
        return None

    def asked(condition: Partial) -> Callable[..., Any]:
        return lambda t, y, args, **rest: condition(parameters(y))

    return diffrax.Event({name: asked(condition) for name, condition in stops.items()})
