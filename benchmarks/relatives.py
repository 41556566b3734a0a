"""Work against precision of RKC2 and its relatives: ``python -m benchmarks relatives``.

One trap: a relative is started, controlled and charged as RKC2 is, and is not tuned beyond what its
module says; what loses here loses as it is written here.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import integrator_report, integrators, relatives_report
from benchmarks.integrator_counts import FIRST_STEP, Cost
from benchmarks.integrator_deflated import Deflated, KrylovDeflated
from benchmarks.integrator_krylov import Krylov
from benchmarks.integrator_peers import Limits, Method, Solve, adaptive, compiled, timed
from benchmarks.integrator_problems import Problem, first_step
from benchmarks.integrator_relatives import RKL2, Relative
from benchmarks.integrator_rock import ROCK4
from benchmarks.integrator_rows import Row, measured, row
from meanfield import checks, ode, store
from meanfield.command import Outcome

SUMMARY = "Work against precision of RKC2 and its relatives: RKL2, ROCK4, Krylov, deflation."
# The first evaluation of the field is in no report of a step.
START = 1
# Solvers from the square roots of the metric, and the two tolerances.
RELATIVES: dict[str, Callable[..., Relative]] = {
    "RKL2": lambda scale, rtol, atol: RKL2(),
    "ROCK4": lambda scale, rtol, atol: ROCK4(),
    "ROCK4, damped": lambda scale, rtol, atol: ROCK4(damping=1 / 3),
    "Krylov 2": Krylov,
    "Krylov 3": lambda scale, rtol, atol: Krylov(scale, rtol, atol, corrected=True),
    "Krylov + RKC2": KrylovDeflated,
    "deflation 1": lambda scale, rtol, atol: Deflated(scale, rank=1),
    "deflation 4": lambda scale, rtol, atol: Deflated(scale, rank=4),
    "deflation 8": lambda scale, rtol, atol: Deflated(scale, rank=8),
    "deflation 4, free": lambda scale, rtol, atol: Deflated(scale, rank=4, free=True),
}
FREE_RTOL = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Work-precision of the relatives of RKC2."""

    problems: tuple[str, ...] = integrators.PROBLEMS
    """Problems of the integrators benchmark."""
    methods: tuple[str, ...] = ("RKC2", *RELATIVES)
    """Methods; RKC2 must be among them."""
    tolerances: tuple[float, ...] = (5e-2, 2e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
    """Relative tolerances, in the order in which they are run."""
    atol_ratio: float = 0.1
    """Absolute tolerance over relative tolerance."""
    reference_rtol: float = 1e-7
    """Relative tolerance of the reference, by RKC2."""
    seed: int = 0
    """Seed of data and parameters."""
    sizes: str = "default"
    """Preset of the integrators benchmark that the sizes of the problems are taken from."""
    dimension: int = 2048
    """Parameters of the least-squares problem."""
    max_steps: int = 3000
    """Steps that one solve may attempt."""
    method_gradients: int = 6000
    """Gradients of one method on one problem after which its remaining tolerances are left out."""
    least_squares_gradients: int = 60_000
    """The same for least squares, whose gradients are cheap."""
    repeats: int = 1
    """Further runs of a short solve, for its best time."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in self.problems:
            checks.choice("problem", name, integrators.PROBLEMS)
        for name in self.methods:
            checks.choice("method", name, ("RKC2", *RELATIVES))
        if "RKC2" not in self.methods:
            raise ValueError("methods must hold RKC2, which the others are compared with")
        checks.choice("sizes", self.sizes, tuple(integrators.PRESETS))
        for tolerance in self.tolerances:
            checks.positive("a tolerance", tolerance)


PRESETS = {
    "tiny": Config(
        problems=("least_squares",), methods=("RKC2", "RKL2", "Krylov 2"), tolerances=(1e-2, 1e-4),
        sizes="tiny", dimension=64, repeats=0,
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Integrates every problem by every method, measures, draws and reports."""
    sized = dataclasses.replace(
        integrators.PRESETS[config.sizes],
        problems=config.problems, dimension=config.dimension, seed=config.seed,
    )  # fmt: skip
    problems = integrators.problems_of(sized)
    methods = {name: _method(name, config) for name in config.methods}
    rows, references = [], []
    for problem in problems:
        found, reference = _compared(problem, methods, config, progress)
        rows += found
        references.append(reference)
    results: dict[str, Any] = {
        "rows": [row._asdict() for row in rows],
        "references": [reference._asdict() for reference in references],
    }
    results["costs"] = relatives_report.costs(results)
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    integrator_report.draw(results, out_dir, colors=relatives_report.COLORS)
    return Outcome(
        arrays=integrators.columns(rows),
        report=relatives_report.page(results, config),
        summary=relatives_report.summary(results),
        data_checksums={p.name: p.sha256 for p in problems if p.sha256},
        seeds=[config.seed],
    )


def _method(name: str, config: Config) -> Method:
    if name == "RKC2":
        return adaptive(ode.RKC2(), config.atol_ratio)
    return relative(RELATIVES[name], config.atol_ratio)


def relative(solver: Callable[..., Relative], atol_ratio: float, /) -> Method:
    """A relative with the controller and the first step of RKC2."""
    programs: dict[str, Any] = {}

    def solve(problem: Problem, setting: float, limits: Limits) -> Solve:
        tolerances = (setting, atol_ratio * setting)
        first = first_step(problem, setting)
        inputs = (problem.field, problem.start, problem.horizon, first, tolerances)
        program, seconds = compiled(
            programs, problem.family, _solved, inputs, solver=solver, steps=limits.gradients // 2
        )
        return timed(program, inputs, seconds, limits, _cost)

    return solve


def _cost(statistics, evaluations):
    steps = (int(statistics[f"num_{name}_steps"]) for name in ("accepted", "rejected"))
    return Cost(int(evaluations) + START + FIRST_STEP, 0, *steps)


def _solved(field, theta, horizon, first, tolerances, *, solver, steps):
    flat, unravel = ravel_pytree(theta)
    metric = jax.tree.map(lambda s, leaf: s * jnp.ones_like(leaf), field.metric(theta), theta)
    scale = jnp.sqrt(ravel_pytree(metric)[0])
    controller = ode.Ledger(diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1]))
    solution: Any = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: ravel_pytree(field(t, unravel(y)))[0]),
        solver(scale, *tolerances), 0.0, horizon, first, flat,
        saveat=diffrax.SaveAt(t1=True, controller_state=True), stepsize_controller=controller,
        adjoint=diffrax.ForwardMode(), max_steps=steps, throw=False,
    )  # fmt: skip
    reached = solution.ts[-1]
    end = (unravel(solution.ys[-1]), reached, reached >= horizon)
    return end, (solution.stats, solution.controller_state.evaluations)


def _compared(problem, methods, config, progress):
    """The rows of one problem and its reference."""
    limits = Limits(2 * config.max_steps, np.inf, config.repeats)
    truth, how = problem.exact, "closed form"
    if truth is None:
        how = f"RKC2 at rtol {config.reference_rtol:g}"
        tight = methods["RKC2"](problem, config.reference_rtol, limits._replace(repeats=0))
        truth, how = tight.theta, how + (f", {tight.stopped}" if tight.stopped else "")
    quadratic = problem.family == "least_squares"
    most = config.least_squares_gradients if quadratic else config.method_gradients
    rows: list[Row] = []
    for name, method in methods.items():
        spent = 0
        for setting in config.tolerances:
            if spent > most or ("free" in name and setting < FREE_RTOL):
                continue
            begin = time.perf_counter()
            found = row(problem, name, setting, method(problem, setting, limits), truth)
            rows.append(found)
            spent += found.gradients
            if progress:
                took = time.perf_counter() - begin
                print(f"{integrator_report.line(found)}  took {took:.0f} s", flush=True)
    others = [r for r in rows if r.method != "RKC2" and not r.stopped]
    best = min(others, key=lambda r: r.error, default=None)
    independent = (best.error, f"{best.method} at rtol {best.setting:g}") if best else (np.nan, "-")
    return measured(problem, truth, rows, how, independent)
