r"""A gradient flow in segments that end on step boundaries.

    (tau, theta, D, next step, solver, controller)  ->  the same, after as many steps as allowed

A segment ends because its steps are used up and not because of a time, so no step is cut short: a
flow takes the same steps, bit for bit, wherever its segments end.

One trap: the step to be tried next is in no state of diffrax; a controller around the others keeps
it, and hands it to the segment that follows.

References:
    Kidger 2022, *On Neural Differential Equations*, arXiv 2202.02435 (diffrax).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array

from meanfield import ode
from meanfield.flow.observables import observed
from meanfield.flow.program import Flowing, Machine, machine, seen_in, solved

COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps")


class Carry(NamedTuple):
    """All that one segment hands to the next: where it is, and how it means to go on."""

    time: Any
    following: Any
    state: Flowing
    solver: Any
    controller: Any


class Segment(NamedTuple):
    """One segment: the carry, rows at the times it passed, what it cost, how and why it ended."""

    carry: Carry
    reached: Array
    rows: Any
    counts: dict[str, Array]
    effort: Array
    result: Any
    met: Any


class PacedState(NamedTuple):
    """State of the wrapped controller, end of the step to be tried next, steps so far."""

    inner: Any
    following: Any
    steps: Any


class Paced(diffrax.AbstractAdaptiveStepSizeController):
    """Wraps a controller: keeps the next step, and ends the solve when its steps are used up.

    Args:
        controller: The controller that decides on steps.
        following: End of the first step.
        horizon: End of the flow.
        budget: Steps, rejected ones among them, and effort, after which the solve ends.

    >>> Paced(diffrax.PIDController(rtol=1e-3, atol=1e-6), 0.1, 1.0, (5, 9)).rtol
    0.001
    """

    rtol: Any
    atol: Any
    norm: Callable[[Any], Any]
    controller: diffrax.AbstractAdaptiveStepSizeController
    following: Any
    horizon: Any
    budget: Any

    def __init__(self, controller: Any, following: Any, horizon: Any, budget: Any):
        self.rtol, self.atol, self.norm = controller.rtol, controller.atol, controller.norm
        self.controller = controller
        self.following, self.horizon, self.budget = following, horizon, budget

    def wrap(self, direction: Any) -> "Paced":
        """A copy that knows the direction of time, which is forward."""
        return Paced(self.controller.wrap(direction), self.following, self.horizon, self.budget)

    def init(  # noqa: PLR0917 (the base class fixes the signature)
        self, terms, t0, t1, y0, dt0, args, func, error_order
    ):
        """The step that was to be tried next; diffrax has the state already."""
        del terms, t0, t1, y0, dt0, args, func, error_order
        return self.following, None

    def adapt_step_size(  # noqa: PLR0917 (the base class fixes the signature)
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """As ``diffrax.AbstractStepSizeController.adapt_step_size``."""
        keep, start, end, jump, inner, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state.inner
        )
        state = PacedState(
            inner, _clipped(start, end, self.horizon, keep), controller_state.steps + 1
        )
        most_steps, most_effort = self.budget
        paused = (state.steps >= most_steps) | (effort(state) >= most_effort)
        # At the horizon the flow is complete, whatever steps are left.
        paused = paused & (start < self.horizon) & (result == diffrax.RESULTS.successful)
        result = diffrax.RESULTS.where(paused, diffrax.RESULTS.max_steps_reached, result)
        return keep, start, end, jump, state, result


def effort(state: PacedState, /) -> Any:
    """What a flow by RKC2 has evaluated since its start, else the steps of this segment.

    Args:
        state: The state of the controller.

    >>> effort(PacedState(None, 0.1, 3))
    3
    """
    # A step of RKC2 costs from two evaluations to a thousand.
    counted = isinstance(state.inner, ode.LedgerState)
    return state.inner.evaluations if counted else state.steps


def _clipped(start, end, horizon, keep):
    # As diffrax does with what a controller returns: but a state is kept as the controller left it.
    floor = horizon
    for _ in range(100):
        floor = eqxi.prevbefore(floor)
    least = jnp.where(keep, horizon, start + 0.5 * (horizon - start))
    return jnp.where(end > floor, least, end)


@eqx.filter_jit
def beginning(problem, times, first, tolerances, *, solver) -> tuple[Carry, Any]:
    """The carry before the first step, and rows of which there are none yet.

    Args:
        problem: Field, theta, observables and stop conditions.
        times: Save times.
        first: First step.
        tolerances: rtol and atol.
        solver: An adaptive solver.

    >>> from meanfield import flow, ode
    >>> problem = flow.gradient_field(lambda theta: theta**2), jnp.ones(()), {}, {}
    >>> given = jnp.arange(2.0), jnp.array(0.5), jnp.array([1e-3, 1e-6])
    >>> float(beginning(problem, *given, solver=ode.RKC2())[0].following)
    0.5
    """
    _, theta, functions, _ = problem
    parts = machine(problem, times, tolerances, solver)
    leaves = [
        jnp.asarray(leaf, jnp.result_type(leaf, times.dtype)) for leaf in jax.tree.leaves(theta)
    ]
    state = Flowing(leaves, jnp.zeros((), times.dtype))
    terms, args = parts.options["terms"], parts.options["args"]
    following, controller = parts.controller.wrap(1).init(
        terms,
        times[0],
        times[-1],
        state,
        first,
        args,
        parts.solver.func,
        parts.solver.error_order(terms),
    )
    following = jnp.minimum(following, times[-1])
    begun = parts.solver.init(terms, times[0], following, state, args)
    seen = jax.eval_shape(functools.partial(observed, functions), theta)
    rows = jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), seen)
    none = jnp.zeros(0, times.dtype)
    return _strict(Carry(times[0], following, state, begun, controller)), (rows, none, none)


@eqx.filter_jit
def segment(problem, times, pending, carry, tolerances, *, budget, solver) -> Segment:
    """The flow from where it is, for as many steps as the budget allows.

    Args:
        problem: Field, theta, observables and stop conditions.
        times: Save times, all of them.
        pending: Those that have no row yet, filled up with NaN, which no step ever passes.
        carry: What the segment before handed over.
        tolerances: rtol and atol.
        budget: Most steps, and the effort after which it ends too.
        solver: An adaptive solver.

    >>> from meanfield import flow, ode
    >>> problem = flow.gradient_field(lambda theta: theta**2), jnp.ones(()), {}, {}
    >>> tolerances, chosen = jnp.array([1e-3, 1e-6]), {"solver": ode.RKC2()}
    >>> begun, _ = beginning(problem, jnp.arange(2.0), jnp.array(0.1), tolerances, **chosen)
    >>> chosen |= {"budget": jnp.array([1, 99])}
    >>> done = segment(problem, *[jnp.arange(2.0)] * 2, begun, tolerances, **chosen)
    >>> bool(done.result == diffrax.RESULTS.max_steps_reached), int(done.counts["num_steps"])
    (True, 1)
    """
    _, theta, functions, _ = problem
    parts: Machine = machine(problem, times, tolerances, solver)
    paced: Any = PacedState(carry.controller, carry.following, jnp.zeros((), jnp.int32))
    before = effort(paced)
    pace = Paced(parts.controller, carry.following, times[-1], (budget[0], before + budget[1]))
    solution = solved(
        parts._replace(controller=pace),
        pending,
        t0=carry.time,
        t1=times[-1],
        dt0=None,
        y0=carry.state,
        solver_state=carry.solver,
        controller_state=paced,
        max_steps=None,
    )
    (reached, (end,)), ((_, *energies), last) = cast(Any, (solution.ts, solution.ys))
    paced = solution.controller_state
    state = jax.tree.map(lambda leaf: leaf[0], last)
    carry = Carry(end, paced.following, state, solution.solver_state, paced.inner)
    rows = seen_in(solution, functions, theta), *energies
    counts = {name: solution.stats[name] for name in COUNTS}
    ending = effort(paced) - before, solution.result, solution.event_mask
    return Segment(_strict(carry), reached, rows, counts, *ending)


def _strict(tree: Any) -> Any:
    # A number without a type of its own would compile the next segment anew.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)
