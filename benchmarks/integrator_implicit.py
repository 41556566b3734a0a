"""Kvaerno5 with Newton's method and matrix-free GMRES as a peer.

One trap: GMRES hides its products inside the program; a second program, not timed, counts them.
"""

from typing import Any

import diffrax
import jax
import lineax
import optimistix
from jax.experimental import io_callback

from benchmarks.integrator_counts import FIRST_STEP, Cost, Meter, counted
from benchmarks.integrator_peers import (
    Limits,
    Method,
    Solve,
    compiled,
    end,
    over_leaves,
    timed,
)
from benchmarks.integrator_problems import Problem, first_step

METER = Meter()
_COUNTING = 4


def implicit(atol_ratio: float, /) -> Method:
    """Kvaerno5 with Newton's method and GMRES; runs twice, for its time and for its counts."""
    programs: dict[str, Any] = {}

    def run(problem: Problem, setting: float, limits: Limits) -> Solve:
        first = first_step(problem, setting)
        inputs = (problem.start, problem.horizon, first, setting, atol_ratio * setting)
        solves, counts = [], (0, 0)
        for counting in (True, False):
            field = counted(problem.field, METER) if counting else problem.field
            name = f"{problem.family} {counting}"
            program, seconds = compiled(programs, name, _kvaerno, inputs, field=field)
            spend = limits._replace(repeats=0 if counting else limits.repeats)
            # Callbacks are slow: the run that counts is stopped by what it counts, or far later.
            allowed = limits.seconds * (_COUNTING if counting else 1)
            METER.start(seconds=allowed, gradients=limits.gradients)
            solves.append(timed(program, inputs, seconds, spend, _steps))
            jax.effects_barrier()
            if counting:
                counts = METER.evaluations + FIRST_STEP, METER.products
            if solves[-1].stopped:
                break
        end = solves[-1]
        cost = Cost(*counts, end.cost.accepted, end.cost.rejected)
        return end._replace(cost=cost)

    return run


def _steps(statistics):
    return Cost(0, 0, int(statistics["num_accepted_steps"]), int(statistics["num_rejected_steps"]))


def _kvaerno(theta, horizon, first, rtol, atol, *, field):
    term, leaves, structure = over_leaves(field, theta)
    newton = diffrax.with_stepsize_controller_tols(optimistix.Newton)(
        linear_solver=lineax.GMRES(rtol=1e-3, atol=1e-10, restart=30, max_steps=300)
    )

    def over(t, y, args, **others):
        del y, args, others
        return io_callback(METER.exhausted, jax.ShapeDtypeStruct((), bool), t, ordered=False)

    solution = diffrax.diffeqsolve(
        term, diffrax.Kvaerno5(root_finder=newton), 0.0, horizon, first, leaves,
        saveat=diffrax.SaveAt(t1=True), adjoint=diffrax.ForwardMode(), max_steps=20_000,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        event=diffrax.Event(over), throw=False,
    )  # fmt: skip
    return end(solution, structure, horizon), (solution.stats,)
