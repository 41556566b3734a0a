r"""The field of the weight-decayed gradient flow.

    dtheta/dtau = -s * grad Q(theta),       s = time_scales(theta)   (L M for mean-field particles)

The flow descends the energy in the metric |v|_s^2 = sum |v|^2 / s:

    dQ/dtau = -sum s |grad Q|^2 = -sum |dtheta/dtau|^2 / s.

One trap: without the factor L M the flow of a mean-field network freezes as its width grows.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (9), (21); Ding et al., eq. (3).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import PyTree

from meanfield import ode
from meanfield.flow.risk import as_partial
from meanfield.notation import Risk, Scalar
from meanfield.tree import broadcast_prefix, dot


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class GradientField:
    """The right-hand side of a gradient flow, and what it descends; itself a tree of arrays.

    Attributes:
        energy: Q, from theta to a number.
        time_scales: From theta, one factor of the gradient per branch.
        trainable: 1.0 where a branch trains, 0.0 where it is held fixed.
    """

    energy: Partial
    time_scales: Partial
    trainable: PyTree

    def __call__(self, time: Any, theta: PyTree, args: Any = None) -> PyTree:
        """dtheta/dtau at ``theta``; time and args are ignored (the signature of an ODE's field)."""
        del time, args
        return self.velocity(theta)[0]

    def velocity(self, theta: PyTree) -> tuple[PyTree, Scalar]:
        """dtheta/dtau and the dissipation -dQ/dtau, from one gradient."""
        gradient = jax.grad(self.energy)(theta)
        factors = self.metric(theta)
        velocity = jax.tree.map(
            lambda factor, leaf: jnp.asarray(-factor, leaf.dtype) * leaf, factors, gradient
        )
        return velocity, -dot(gradient, velocity)

    def metric(self, theta: PyTree) -> PyTree:
        """The factor s of every leaf, 0 where it is held fixed."""
        return jax.tree.map(
            lambda scale, kept: scale * kept,
            broadcast_prefix(self.time_scales(theta), theta),
            broadcast_prefix(self.trainable, theta),
        )


def gradient_field(
    energy: Risk,
    time_scales: Callable[[Any], PyTree] | None = None,
    /,
    *,
    trainable: PyTree = True,
) -> GradientField:
    """The field dtheta/dtau = -s * grad Q of a gradient flow.

    Args:
        energy: Q, from theta to a number.
        time_scales: From theta, one factor s per branch (``model.time_scales``); 1 if None.
        trainable: True where theta trains: one value, or a prefix of theta.

    Returns:
        A function (time, theta, args=None) -> dtheta/dtau that also knows its energy and metric.

    Raises:
        ValueError: If nothing is trainable.

    References:
        Ding et al., eq. (3); Gao et al. 2024, arXiv 2410.23610, eq. (9).

    >>> field = gradient_field(lambda theta: theta**2, lambda theta: 3.0)
    >>> float(field(0.0, jnp.array(1.0)))
    -6.0
    """
    if not any(jax.tree.leaves(trainable)):
        raise ValueError(
            "trainable must be True somewhere, got a mask that holds all of theta fixed"
        )
    mask = jax.tree.map(float, trainable)
    return GradientField(
        energy=as_partial(energy), time_scales=as_partial(time_scales or _ones), trainable=mask
    )


def check_field(field: Callable[..., PyTree], theta: PyTree, /) -> None:
    """Checks, without evaluating it, that a field fits the parameters.

    Args:
        field: The field.
        theta: Parameters.

    Raises:
        ValueError: If theta is not floating point, or the field returns another structure or shape.

    >>> check_field(gradient_field(lambda theta: theta**2), jnp.array(1.0))
    """
    # Under jit the shapes of a field are remembered: a second solve traces the risk no more.
    remembered = isinstance(field, GradientField)
    ode.check_rate(lambda t, y: (_rate if remembered else _call)(field, t, y), 0.0, theta)


def check_energy(field: GradientField, theta: PyTree, /) -> None:
    """Checks, by one evaluation, that the energy is finite where a run starts.

    Args:
        field: The field.
        theta: Parameters at the start.

    Raises:
        ValueError: If the energy is NaN or infinite there.

    >>> check_energy(gradient_field(lambda theta: theta**2), jnp.array(1.0))
    """
    finite_energy(float(_value(field.energy, theta)))


def finite_energy(value: float, /) -> float:
    """The energy at the start of a run, if it is finite.

    Args:
        value: The energy.

    Raises:
        ValueError: If it is NaN or infinite.

    >>> finite_energy(1.0)
    1.0
    """
    if not math.isfinite(value):
        raise ValueError(
            f"the energy at the start must be finite, got {value}: "
            "check labels, data and the initial scale"
        )
    return value


def _call(field: Callable[..., PyTree], time: Any, theta: PyTree) -> PyTree:
    return field(time, theta)


_rate = jax.jit(_call)


@jax.jit
def _value(energy: Risk, theta: PyTree) -> Any:
    return energy(theta)


def _ones(theta: PyTree) -> float:
    del theta
    return 1.0
