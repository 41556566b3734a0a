"""scipy's LSODA and BDF as peers: implicit methods with a dense Jacobian by finite differences.

One trap: their Jacobian costs one gradient per parameter and their memory its square, so they are
peers of small networks only.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import integrate

from benchmarks.integrator_counts import FIRST_STEP, Cost
from benchmarks.integrator_peers import Limits, Method, Solve
from benchmarks.integrator_problems import Problem, first_step


class _SpentError(Exception):
    """A limit is passed."""


def scipy_method(name: str, atol_ratio: float, most_parameters: int, /) -> Method:
    """`scipy.integrate.solve_ivp` with one of its stiff methods, calls of the field counted."""

    def run(problem: Problem, setting: float, limits: Limits) -> Solve:
        flat, unravel = ravel_pytree(problem.start)
        if flat.size > most_parameters:
            gigabytes = 8e-9 * flat.size**2
            why = (
                f"not run: its dense Jacobian takes {gigabytes:.1f} GB a copy and "
                f"{flat.size:,} gradients"
            )
            return Solve(problem.start, 0.0, Cost(0), np.nan, np.nan, 0.0, why)
        begin = time.perf_counter()
        rate = jax.jit(lambda field, y: ravel_pytree(field(0.0, unravel(y)))[0])
        rate = rate.lower(problem.field, flat).compile()
        compile_seconds = time.perf_counter() - begin
        calls, latest = 0, (0.0, np.asarray(flat))
        begin = time.perf_counter()

        def called(t, y):
            nonlocal calls, latest
            calls, latest = calls + 1, (t, y)
            if calls > limits.gradients or time.perf_counter() - begin > limits.seconds:
                raise _SpentError
            return np.asarray(rate(problem.field, jnp.asarray(y)))

        stopped = ""
        try:
            solution = integrate.solve_ivp(
                called, (0.0, problem.horizon), np.asarray(flat), method=name,
                t_eval=[problem.horizon], rtol=setting, atol=atol_ratio * setting,
                first_step=first_step(problem, setting),
            )  # fmt: skip
            reached, end = float(solution.t[-1]), solution.y[:, -1]
            if not solution.success:
                stopped = str(solution.message)
        except _SpentError:
            stopped = "its gradients or seconds were spent"
            reached, end = float(latest[0]), latest[1]
        seconds = time.perf_counter() - begin
        theta = unravel(jnp.asarray(end))
        cost = Cost(calls + FIRST_STEP)
        return Solve(theta, reached, cost, seconds, seconds, compile_seconds, stopped)

    return run
