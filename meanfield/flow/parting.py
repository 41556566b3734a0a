r"""Where gradient descent parts from the gradient flow.

    theta_{k+1} = theta_k - eta s grad Q(theta_k)      against      theta(tau) at tau = eta k

Their distance is O(eta) while the largest eigenvalue of s Hess Q stays below 2 / eta. Above it the
step of descent overshoots and grows along that eigenvector: soon after the crossing the two part.

One trap: the distance holds the error of the computed flow too. Where it is of the size of the
flow's tolerance it says nothing about descent.

References:
    Cohen et al. 2021, arXiv 2103.00065 (descent follows the flow until the sharpness is 2 / eta).
    Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I (1993), section II.3
    (global error of Euler's method).
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from meanfield import checks, ode
from meanfield.flow.descent import descent
from meanfield.flow.gradient import GradientField
from meanfield.flow.record import DIVERGED, Record
from meanfield.flow.sharpness import Sharpness, sharpness, sharpness_along
from meanfield.flow.solve import gradient_flow


class Parting(NamedTuple):
    """Descent beside the flow, at the times that both reached.

    Attributes:
        times: The times compared, step size times number of steps.
        distance: |theta_descent - theta_flow| over all parameters.
        relative: That over |theta_flow - theta(0)|, the way the flow has come; 0 at the start.
        sharpness: The sharpness of the flow.
        crossing: First time at which its largest eigenvalue is above 2 / step size, by linear
            interpolation between the times; the first of them if it is above already; NaN if never.
        parted: First of the times at which ``relative`` is above the threshold, or which descent
            alone did not live to see; NaN if never.
        flow: The record of the flow, its observables being the parameters.
        descent: The record of descent, its times being numbers of steps.
    """

    times: Float[np.ndarray, "t"]
    distance: Float[np.ndarray, "t"]
    relative: Float[np.ndarray, "t"]
    sharpness: Sharpness
    crossing: float
    parted: float
    flow: Record
    descent: Record


def parting(
    field: GradientField,
    theta: PyTree[Float[Array, "..."]],
    /,
    *,
    step_size: float,
    steps: Any,
    rtol: float = 1e-4,
    atol: float = 1e-7,
    threshold: float = 0.1,
    tolerance: float = 1e-3,
    max_products: int = 64,
) -> Parting:
    """Runs descent and the flow from one start and tells when they part.

    Where a run stops early, as descent that diverges, they are compared as far as both came. Both
    save their parameters at every time compared.

    Args:
        field: The field of the flow.
        theta: Parameters at the start of both.
        step_size: Step of descent, in the time of the flow.
        steps: Increasing numbers of steps to compare after, the last >= 1.
        rtol: Relative tolerance of the flow.
        atol: Absolute tolerance of the flow.
        threshold: Relative distance above which they have parted.
        tolerance: Tolerance of the sharpness.
        max_products: Most Hessian products of the sharpness at each time.

    Returns:
        Distances, sharpness (see its ``converged``), the two times and the two records.

    Raises:
        ValueError: If an option is out of range, or a run cannot start.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2 / 2)
    >>> parting(field, jax.numpy.array(1.0), step_size=0.5, steps=[0, 2]).distance.round(3).tolist()
    [0.0, 0.118]
    """
    checks.positive("step_size", step_size)
    checks.positive("threshold", threshold)
    ode.check_tolerances(rtol, atol)
    # Bad options of the sharpness must be told before the runs, not after them.
    sharpness(field, tolerance=tolerance, max_products=max_products)
    walked = descent(field, theta, steps, optimizer=_euler(step_size), observe=_whole)
    if np.asarray(steps)[-1] < 1:
        raise ValueError(f"steps must end at 1 or later, got {steps}: nothing has moved before")
    times = step_size * np.asarray(steps, float)
    # The flow starts at 0, whether or not that is a time to compare at.
    ts = times if times[0] == 0 else np.append(0.0, times)
    flowed = gradient_flow(field, theta, ts, rtol=rtol, atol=atol, observe=_whole)
    ours, theirs = _rows(times, flowed, walked)
    found = sharpness_along(field, ours, tolerance=tolerance, max_products=max_products)
    found = jax.tree.map(np.asarray, found)
    distance, relative = _apart(theirs, ours, theta)
    crossing = _crossing(times, found.largest, 2 / step_size)
    parted = _parted(times, relative > threshold, flowed, walked)
    shared = times[: len(distance)]
    return Parting(shared, distance, relative, found, crossing, parted, flowed, walked)


# The same objects in every call, so that a second one compiles nothing.
_euler = functools.lru_cache(maxsize=64)(optax.sgd)


def _whole(theta: PyTree) -> PyTree:
    return theta


def _rows(times: np.ndarray, flowed: Record, walked: Record) -> tuple[PyTree, PyTree]:
    """The parameters of the flow and of descent at the times that both reached."""
    early = int(times[0] > 0)
    reached = min(len(walked.times), len(flowed.times) - early)
    ours = jax.tree.map(lambda leaf: leaf[early : early + reached], flowed.observables)
    return ours, jax.tree.map(lambda leaf: leaf[:reached], walked.observables)


def _apart(theirs: PyTree, ours: PyTree, theta: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """The distance, and the distance over the way the flow has come."""
    start = jax.tree.map(lambda leaf: np.asarray(leaf)[None], theta)
    distance, way = _distances(theirs, ours), _distances(ours, start)
    # Nothing over nothing is the start, or a stationary point that neither leaves.
    otherwise = np.where(distance > 0, np.inf, 0.0)
    return distance, np.divide(distance, way, out=otherwise, where=way > 0)


def _distances(left: PyTree, right: PyTree) -> np.ndarray:
    """Euclidean distance at each time, in float64."""

    def squares(x: Any, y: Any) -> Any:
        gap = np.asarray(x, float) - np.asarray(y, float)
        return np.sum(gap**2, axis=tuple(range(1, gap.ndim)))

    # Descent that diverges passes through numbers whose squares are none.
    with np.errstate(over="ignore"):
        return np.sqrt(sum(jax.tree.leaves(jax.tree.map(squares, left, right))))


def _crossing(times: np.ndarray, values: np.ndarray, bound: float) -> float:
    """The first time above the bound, on the straight lines between the known values."""
    known = np.isfinite(values)
    times, values = times[: len(values)][known], values[known].astype(float)
    above = values > bound
    if not np.any(above):
        return float("nan")
    last = int(np.argmax(above))
    first = max(last - 1, 0)
    return float(np.interp(bound, values[first : last + 1], times[first : last + 1]))


def _parted(times: np.ndarray, beyond: np.ndarray, flowed: Record, walked: Record) -> float:
    # Where the flow goes on and descent could not, they have parted.
    alone = walked.result == DIVERGED and times[len(beyond)] in flowed.times
    beyond = np.append(beyond, alone)
    return float(times[np.argmax(beyond)]) if np.any(beyond) else float("nan")
