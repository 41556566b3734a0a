"""What a flow refuses before it starts, and how long its first step is.

One trap: times that differ in double precision may be one and the same in single precision.
"""

import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from meanfield import checks
from meanfield.flow.gradient import GradientField, check_field, finite_energy


def save_times(ts: Any, /) -> Float[np.ndarray, "t"]:
    """Save times as an array in double precision.

    Args:
        ts: Two or more increasing times.

    Raises:
        ValueError: If they are anything else.

    >>> save_times([0, 1]).tolist()
    [0.0, 1.0]
    """
    times = np.asarray(ts, dtype=float)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(
            f"ts must hold at least two times, got shape {times.shape}; "
            "give the start, the save times and the end"
        )
    if not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        raise ValueError(f"ts must be finite and increasing, got {times.tolist()}")
    return times


def check_start(field: Any, theta: PyTree, times: Float[np.ndarray, "t"], /) -> Any:
    """Checks that a flow can start, and gives the precision it will have.

    Args:
        field: The field of the flow.
        theta: Parameters at the start.
        times: What :func:`save_times` returned.

    Returns:
        The dtype of time and energy.

    Raises:
        ValueError: If field, parameters, energy or times do not fit.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2)
    >>> check_start(field, jnp.array(1.0, "float32"), np.array([0.0, 1.0]))
    dtype('float32')
    """
    checks.finite("theta", theta)
    check_field(field, theta)
    dtype = jnp.result_type(*jax.tree.leaves(theta))
    with np.errstate(over="ignore"):
        cast = times.astype(dtype).astype(float)
    if not np.all(np.isfinite(cast)) or np.any(np.diff(cast) <= 0):
        raise ValueError(
            f"ts must be finite and increasing in {dtype}, got {times.tolist()}, which that "
            "resolves no more; start at 0 or use float64"
        )
    return dtype


def first_step(
    field: GradientField, theta: PyTree, times: Float[np.ndarray, "t"], rtol: float, /
) -> float:
    """The first step h = 2 rtol^(1/3) Q / (-dQ/dtau).

    Of one mode that decays at a rate lambda, Q / (-dQ/dtau) = 1 / (2 lambda), so that the local
    error, which is of third order in h lambda, is of the size of rtol. A step too short costs as
    many as it takes to grow, one too long is rejected.

    Args:
        field: The field of the flow; its energy and one gradient are evaluated.
        theta: Parameters at the start.
        times: What :func:`save_times` returned.
        rtol: Relative tolerance of a step.

    Raises:
        ValueError: If the energy is not finite.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2 / 2)
    >>> round(first_step(field, jnp.array(1.0), np.array([0.0, 9.0]), 1e-3), 4)
    0.1
    """
    energy, fall = energy_and_fall(field, theta)
    finite_energy(energy)
    span = float(times[-1] - times[0])
    known = math.isfinite(fall) and fall > 0 and energy != 0
    wanted = 2 * rtol ** (1 / 3) * abs(energy) / fall if known else span / 100
    # A step that time cannot resolve would be repeated for ever.
    resolution = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(theta))).eps)
    return min(max(wanted, 16 * resolution * float(np.max(np.abs(times)))), span)


def energy_and_fall(field: GradientField, theta: PyTree, /) -> tuple[float, float]:
    """The energy Q and the rate -dQ/dtau at which the flow lowers it.

    Args:
        field: The field of the flow.
        theta: Parameters.

    >>> from meanfield import flow
    >>> energy_and_fall(flow.gradient_field(lambda theta: theta**2), jnp.array(1.0))
    (1.0, 4.0)
    """
    energy, fall = _energy_and_fall(field, theta)
    return float(energy), float(fall)


@jax.jit
def _energy_and_fall(field, theta):
    return field.energy(theta), field.velocity(theta)[1]


def adaptive(solver: Any, /) -> diffrax.AbstractAdaptiveSolver:
    """The solver, if it can adapt its step.

    Args:
        solver: A solver.

    Raises:
        ValueError: If it is no adaptive diffrax solver.

    >>> adaptive(diffrax.Tsit5())
    Tsit5()
    """
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ValueError(
            "solver must be an instance of an adaptive diffrax solver, e.g. diffrax.Tsit5(), "
            f"got {solver!r}"
        )
    return solver
