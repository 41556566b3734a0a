"""Methods that integrate a gradient flow, each behind one function of a problem and a setting.

    adaptive methods take a tolerance; methods of fixed step take a step times the peak sharpness

One trap: a method of fixed step is given the peak sharpness of the pilot solve, which its user
would not have; it is a stronger peer here than in life.

References:
    Cohen, Kaur, Li, Kolter, Talwalkar 2021, arXiv 2103.00065 (gradient flow by Runge-Kutta steps of
    length 1 / sharpness).
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from benchmarks.integrator_counts import FIRST_STEP, Cost, evaluations_per_step, explicit_cost
from benchmarks.integrator_problems import Problem, first_step
from meanfield import ode
from meanfield.ode.radius import probe

REFRESH = 10


class Limits(NamedTuple):
    """What one solve may spend, and how often it is repeated if it takes less than `short`."""

    gradients: int
    seconds: float
    repeats: int
    short: float = 3.0


class Solve(NamedTuple):
    """The end of a solve: parameters, time reached, cost, seconds, and why it stopped early.

    The residual is that of the energy balance, where a method has one.
    """

    theta: PyTree
    reached: float
    cost: Cost
    first_seconds: float
    seconds: float
    compile_seconds: float
    stopped: str = ""
    residual: float = np.nan


Method = Callable[[Problem, float, Limits], Solve]


def adaptive(solver: diffrax.AbstractAdaptiveSolver, atol_ratio: float, /) -> Method:
    """An explicit adaptive solver of diffrax, or RKC2, with a PID controller."""
    programs: dict[str, Any] = {}

    def run(problem: Problem, setting: float, limits: Limits) -> Solve:
        steps = max(limits.gradients // evaluations_per_step(solver), 16)
        first = first_step(problem, setting)
        tolerances = (setting, atol_ratio * setting)
        inputs = (problem.field, problem.start, problem.horizon, first, tolerances)
        program, seconds = compiled(
            programs, problem.family, _diffrax_adaptive, inputs, solver=solver, steps=steps
        )
        return timed(program, inputs, seconds, limits, functools.partial(_cost, solver))

    return run


def _cost(solver, statistics, work):
    if not work:
        cost = explicit_cost(solver, statistics)
        return cost._replace(evaluations=cost.evaluations + FIRST_STEP)
    steps = (int(statistics[f"num_{name}_steps"]) for name in ("accepted", "rejected"))
    # The products of RKC2 are differences of the field, and evaluations like the others.
    return Cost(int(work["evaluations"]) + FIRST_STEP, 0, *steps)


def over_leaves(field, theta):
    """A diffrax term on the list of leaves of theta, those leaves, and the way back.

    diffrax cannot save a state with an empty tuple in it, as theta has without a readout.
    """
    leaves, structure = jax.tree.flatten(theta)

    def rate(now, state, args):
        return jax.tree.leaves(field(now, jax.tree.unflatten(structure, state), args))

    return diffrax.ODETerm(rate), leaves, structure


def _diffrax_adaptive(field, theta, horizon, first, tolerances, *, solver, steps):
    controller: Any = diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1])
    term, leaves, structure = over_leaves(field, theta)
    if isinstance(solver, ode.RKC2):
        solver, controller = ode.with_ledger(solver, controller)
    solution = diffrax.diffeqsolve(
        term, solver, 0.0, horizon, first, leaves,
        saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
        stepsize_controller=controller, adjoint=diffrax.ForwardMode(), max_steps=steps, throw=False,
    )  # fmt: skip
    return end(solution, structure, horizon), (solution.stats, ode.work(solution))


def fixed_euler() -> Method:
    """Explicit Euler, i.e. gradient descent, with steps of `setting` over the peak sharpness."""
    programs: dict[str, Any] = {}

    def run(problem: Problem, setting: float, limits: Limits) -> Solve:
        steps = int(np.ceil(problem.horizon * problem.peak / setting))
        if steps > limits.gradients:
            return _refused(problem, f"needs {steps:,} steps of {setting:g} / sharpness")
        inputs = (problem.field, problem.start, problem.horizon, problem.horizon / steps)
        program, seconds = compiled(
            programs, problem.family, _diffrax_fixed, inputs, steps=limits.gradients + 2
        )
        cost = functools.partial(explicit_cost, diffrax.Euler())
        return timed(program, inputs, seconds, limits, cost)

    return run


def _diffrax_fixed(field, theta, horizon, step, *, steps):
    term, leaves, structure = over_leaves(field, theta)
    solution = diffrax.diffeqsolve(
        term, diffrax.Euler(), 0.0, horizon, step, leaves,
        saveat=diffrax.SaveAt(t1=True), adjoint=diffrax.ForwardMode(), max_steps=steps, throw=False,
    )  # fmt: skip
    return end(solution, structure, horizon), (solution.stats,)


def end(solution, structure, horizon):
    """Theta at the end, the time reached, and whether that is the horizon."""
    theta = jax.tree.unflatten(structure, [leaf[-1] for leaf in solution.ys])
    # An event or the last step allowed may come right at the end.
    return theta, solution.ts[-1], solution.ts[-1] >= horizon


def edge_of_stability() -> Method:
    """Classical RK4 with steps of `setting` over the sharpness, estimated anew every few steps."""
    programs: dict[str, Any] = {}

    def run(problem: Problem, setting: float, limits: Limits) -> Solve:
        inputs = (problem.field, problem.start, problem.horizon, setting)
        program, seconds = compiled(
            programs, problem.family, _rk4, inputs, steps=limits.gradients // 4
        )
        return timed(program, inputs, seconds, limits, lambda counts: Cost(*map(int, counts)))

    return run


def _rk4(field, theta, horizon, setting, *, steps):
    def rate(state):
        return field(0.0, state)

    def radius_of(state, direction, previous, due):
        def product(vector):
            return jax.jvp(rate, (state,), (vector,))[1]

        # Up to 30 products at the start, one or two later: the direction is warm.
        return ode.spectral_radius(product, direction, previous, max_products=jnp.where(due, 30, 0))

    def body(carry):
        state, now, count, products, direction, previous = carry
        found = radius_of(state, direction, previous, count % REFRESH == 0)
        h = jnp.minimum(setting / found.value, horizon - now)
        last = setting / found.value >= horizon - now
        slope, total = rate(state), None
        for weight, factor in ((1, 0.5), (2, 0.5), (2, 1.0), (1, None)):
            total = _axpy(weight, slope, total)
            if factor is not None:
                slope = rate(_axpy(factor * h, slope, state))
        now = jnp.where(last, horizon, now + h)
        return (_axpy(h / 6, total, state), now, count + 1, products + found.products,
                found.direction, found.value)  # fmt: skip

    start = (theta, jnp.zeros(()), 0, 0, probe(theta), jnp.zeros(()))
    end = jax.lax.while_loop(lambda c: (c[1] < horizon) & (c[2] < steps), body, start)
    state, now, count, products = end[:4]
    return (state, now, now >= horizon), ((4 * count, products, count),)


def _axpy(factor, x, y):
    if y is None:
        return x
    return jax.tree.map(lambda a, b: factor * a + b, x, y)


def compiled(programs, name, function, inputs, **choices):
    """The compiled program of a function and how long that took, 0 if it was there."""
    if name in programs:
        return programs[name], 0.0
    start = time.perf_counter()
    jitted = jax.jit(functools.partial(function, **choices))
    programs[name] = jitted.lower(*jax.tree.map(jnp.asarray, inputs)).compile()
    return programs[name], time.perf_counter() - start


def timed(
    program: Any,
    inputs: Any,
    compile_seconds: float,
    limits: Limits,
    cost: Callable[..., Cost],
) -> Solve:
    """Runs a program, and again if it is short; the cost is that of the last run, as of all."""
    inputs = jax.tree.map(jnp.asarray, inputs)

    def run():
        start = time.perf_counter()
        out = jax.block_until_ready(program(*inputs))
        return out, time.perf_counter() - start

    ((theta, reached, done), counts), first = run()
    seconds = [first]
    while len(seconds) <= limits.repeats and sum(seconds) < limits.short:
        seconds.append(run()[1])
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(theta))
    stopped = "" if done and finite else ("its budget was spent" if finite else "it diverged")
    return Solve(
        theta, float(reached), cost(*counts), first, min(seconds), compile_seconds, stopped
    )


def _refused(problem, why):
    return Solve(problem.start, 0.0, Cost(0), np.nan, np.nan, 0.0, why)
