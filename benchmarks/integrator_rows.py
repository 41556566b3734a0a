"""What is measured of one solve, and what it is measured against.

One trap: the sharpness of a state that diverged says nothing; it is left out.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.integrator_peers import Solve
from benchmarks.integrator_problems import Problem, sharpness
from meanfield import tree


class Row(NamedTuple):
    """One solve: method, setting, cost, errors; sharpness of its end."""

    problem: str
    method: str
    setting: float
    stopped: str
    reached: float
    gradients: int
    evaluations: int
    products: int
    accepted: int
    rejected: int
    seconds: float
    first_seconds: float
    compile_seconds: float
    error: float
    prediction_error: float
    risk_error: float
    sharpness: float
    sharpness_error: float
    residual: float


class Reference(NamedTuple):
    """What errors are measured against, and how far an independent method is from it."""

    problem: str
    title: str
    parameters: int
    horizon: float
    sharpness: float
    stiffness: float
    peak: float
    energy: float
    how: str
    agreement: float
    other: str


def row(problem: Problem, name: str, setting: float, solve: Solve, truth: Any) -> Row:
    """What is measured of one solve."""
    theta, whole = solve.theta, not np.isnan(solve.seconds)
    energy = float(problem.field.energy(truth))
    found = float(problem.field.energy(theta))
    finite = np.isfinite(found) and whole
    sharp = sharpness(problem.field, theta) if finite else np.nan
    predictions = _distance(problem.predict(theta), problem.predict(truth))
    return Row(
        problem.name, name, setting, solve.stopped, solve.reached, solve.cost.gradients,
        solve.cost.evaluations, solve.cost.products, solve.cost.accepted, solve.cost.rejected,
        solve.seconds, solve.first_seconds, solve.compile_seconds,
        _distance(theta, truth), predictions, abs(found / energy - 1) if energy else np.nan,
        sharp, np.nan, solve.residual,
    )  # fmt: skip


def _distance(theta, truth):
    apart = tree.squared_norm(jax.tree.map(lambda x, y: x - y, theta, truth))
    return float(np.sqrt(apart / tree.squared_norm(truth)))


def measured(
    problem: Problem, truth: Any, rows: list[Row], how: str, independent: tuple[float, str]
) -> tuple[list[Row], Reference]:
    """The rows with the errors of their sharpness, and the reference."""
    top = sharpness(problem.field, truth)
    rows = [r._replace(sharpness_error=abs(r.sharpness / top - 1)) for r in rows]
    reference = Reference(
        problem.name, problem.title, sum(leaf.size for leaf in jax.tree.leaves(problem.start)),
        problem.horizon, top, top * problem.horizon, problem.peak,
        float(problem.field.energy(truth)), how, *independent,
    )  # fmt: skip
    return rows, reference
