"""``gradient_flow`` as one of the methods, certificate included, and what it takes to compile.

One trap: its program is cached, so what it takes to compile is its first call less its second,
with the caches emptied before.
"""

import time
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import numpy as np

from benchmarks.integrator_counts import Cost
from benchmarks.integrator_peers import Limits, Method, Solve
from benchmarks.integrator_problems import SAVES, Problem
from meanfield import flow


def certified(atol_ratio: float, /) -> Method:
    """``meanfield.flow.gradient_flow`` as a user calls it, with its default solver."""

    def run(problem: Problem, setting: float, limits: Limits) -> Solve:
        options: dict[str, Any] = {"rtol": setting, "atol": atol_ratio * setting}
        # The first call compiles, unless an earlier problem of the family has.
        first = _call(problem, options)[1]
        record, second = _call(problem, options)
        seconds = [second]
        while len(seconds) <= limits.repeats and sum(seconds) < limits.short:
            seconds.append(_call(problem, options)[1])
        spent, balance = record.statistics, record.balance
        cost = Cost(spent["gradients"], 0, spent["accepted"], spent["rejected"])
        return Solve(
            record.theta,
            record.end_time,
            cost,
            second,
            min(seconds),
            max(first - second, 0.0),
            "" if record.result == "completed" else record.message,
            float(balance.residual.max()) if balance else float("nan"),
        )

    return run


def compile_seconds(problem: Problem, repeats: int) -> dict[str, list[float]]:
    """CPU seconds to trace and compile ``gradient_flow``, caches empty, with RKC2 and with Tsit5.

    CPU seconds, because a compilation is long and is not repeated often enough for the least of its
    wall times to be free of what other programs do.
    """
    found: dict[str, list[float]] = {"RKC2": [], "Tsit5": []}
    for _ in range(1 + repeats):
        for name, solver in (("RKC2", None), ("Tsit5", diffrax.Tsit5())):
            jax.clear_caches()
            options: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-3, "solver": solver}
            short = problem._replace(horizon=problem.horizon / 100)
            first, second = (_call(short, options, time.process_time)[1] for _ in range(2))
            found[name].append(first - second)
    return found


def _call(
    problem: Problem, options: dict[str, Any], clock: Callable[[], float] = time.perf_counter
) -> tuple[flow.Record, float]:
    begin = clock()
    # As many times, and the same observable, as the pilot solve: one program serves both.
    ts = np.linspace(0.0, problem.horizon, SAVES)
    observe = {"leaves": jax.tree.leaves}
    record = flow.gradient_flow(problem.field, problem.start, ts, observe=observe, **options)
    jax.block_until_ready(record.theta)
    return record, clock() - begin
