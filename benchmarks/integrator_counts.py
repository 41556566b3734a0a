"""What a solve costs: gradients and Hessian products, as counted or as known of a method.

    gradient equivalents = evaluations of the field + 2 * Hessian products

Explicit solvers of diffrax: each attempted step takes its stages, rejected or not, and a method
that reuses its last stage takes one more at the start, and all spend one on their first step.
RKC2 keeps its own account (``meanfield.ode.Ledger``), host solvers count their calls, and an
implicit solver runs once more with a callback in its field, which is not timed.

One trap: a callback inside a timed program is paid for in its time; counting and timing are two
programs.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import numpy as np

from meanfield import flow

PRODUCT = 2
FIRST_STEP = 1


class Cost(NamedTuple):
    """Evaluations of the field, Hessian products, accepted and rejected steps."""

    evaluations: int
    products: int = 0
    accepted: int = 0
    rejected: int = 0

    @property
    def gradients(self) -> int:
        """Gradient equivalents."""
        return self.evaluations + PRODUCT * self.products


class Meter:
    """Counts that callbacks of a running program add to, and when that program should stop."""

    def __init__(self) -> None:
        self.start(seconds=np.inf, gradients=np.inf)

    def start(self, *, seconds: float, gradients: float) -> None:
        """Sets the counts to 0 and the limits anew."""
        self.evaluations = self.products = 0
        self.deadline = time.perf_counter() + seconds
        self.gradients = gradients

    def evaluation(self, _: Any = None) -> None:
        """One evaluation of the field."""
        self.evaluations += 1

    def product(self, _: Any = None) -> None:
        """One Hessian product."""
        self.products += 1

    def exhausted(self, _: Any = None) -> np.bool_:
        """Whether a limit is passed."""
        spent = self.evaluations + PRODUCT * self.products
        return np.bool_(time.perf_counter() > self.deadline or spent > self.gradients)


def counted(field: flow.GradientField, meter: Meter, /) -> Callable:
    """The field, telling the meter of each evaluation and of each product with its Jacobian."""

    @jax.custom_jvp
    def rate(theta):
        jax.debug.callback(meter.evaluation)
        return field(0.0, theta)

    @rate.defjvp
    def _(primals, tangents):
        jax.debug.callback(meter.evaluation)
        slope = jax.jvp(lambda theta: field(0.0, theta), primals, tangents)
        # A number of the tangent goes along, so that the call stays with the product when the
        # derivative is linearised once and applied many times.
        jax.debug.callback(meter.product, jax.tree.leaves(tangents[0])[0].ravel()[0])
        return slope

    return lambda time, theta, args: rate(theta)


def evaluations_per_step(solver: diffrax.AbstractSolver, /) -> int:
    """Evaluations of an explicit solver in a step, rejected or not; of RKC2, the fewest."""
    tableau = getattr(solver, "tableau", None)
    if tableau is None:
        return 1 if isinstance(solver, diffrax.Euler) else 2
    return tableau.num_stages - bool(tableau.fsal)


def explicit_cost(solver: diffrax.AbstractSolver, statistics: dict, /) -> Cost:
    """The cost of an explicit solve by diffrax, from its numbers of steps."""
    accepted, rejected = (int(statistics[f"num_{k}_steps"]) for k in ("accepted", "rejected"))
    start = bool(getattr(getattr(solver, "tableau", None), "fsal", False))
    evaluations = (accepted + rejected) * evaluations_per_step(solver) + start
    return Cost(evaluations, 0, accepted, rejected)
