"""Work against precision of RKC2 and its peers on gradient flows, stiff and not.

    error = |theta - reference| / |reference|,    cost = gradients + 2 Hessian products, or seconds

All methods integrate the same field in double precision with one controller; the reference is the
closed form, or RKC2 at a tight tolerance with an independent method beside it.

One trap: at a loose tolerance an explicit method hovers at its stability limit, so its error says
little about its tolerance; the runs to compare are those of equal error.
"""

import dataclasses
import json
import time
from pathlib import Path

import diffrax
import jax
import numpy as np

from benchmarks import integrator_page, integrator_problems, integrator_report
from benchmarks.integrator_flow import certified, compile_seconds
from benchmarks.integrator_hosts import scipy_method
from benchmarks.integrator_implicit import implicit
from benchmarks.integrator_peers import (
    Limits,
    Method,
    adaptive,
    edge_of_stability,
    fixed_euler,
)
from benchmarks.integrator_problems import Problem
from benchmarks.integrator_rows import Row, measured, row
from meanfield import checks, ode, store
from meanfield.command import Outcome

SUMMARY = "Work against precision of RKC2 and other integrators of gradient flows."
PROBLEMS = ("least_squares", "regression_short", "regression_long", "digits", "nonstiff")
FIXED = ("Euler", "RK4 at 1/λ")

# Before the manifest notes the precision of the run.
jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Work-precision of integrators of gradient flows."""

    problems: tuple[str, ...] = PROBLEMS
    """Problems, among least_squares, regression_short, regression_long, digits, nonstiff."""
    methods: tuple[str, ...] = (
        "RKC2", "gradient_flow", "Euler", "RK4 at 1/λ", "Heun", "Bosh3", "Tsit5", "Dopri8",
        "Kvaerno5", "LSODA", "BDF",
    )  # fmt: skip
    """Methods; RKC2 must be among them."""
    tolerances: tuple[float, ...] = (1e-2, 1e-3, 1e-6, 2e-2, 5e-2, 3e-3, 1e-4, 1e-5)
    """Relative tolerances, in the order in which they are run."""
    atol_ratio: float = 0.1
    """Absolute tolerance over relative tolerance."""
    steps: tuple[float, ...] = (1.9, 1.6, 1.0, 0.5)
    """Steps of the methods of fixed step, over the sharpness."""
    reference_rtol: float = 1e-7
    """Relative tolerance of the reference."""
    seed: int = 0
    """Seed of data and parameters."""
    dimension: int = 16_384
    """Parameters of the least-squares problem."""
    condition: float = 1e6
    """Its condition number."""
    stiffness: float = 3e3
    """Sharpness x horizon of the shorter regression flow."""
    long_stiffness: float = 3e4
    """Sharpness x horizon of the longer regression flow."""
    mild_stiffness: float = 10.0
    """Sharpness x horizon of the non-stiff regression flow."""
    digits_stiffness: float = 2e3
    """Sharpness x horizon of the digits flow."""
    prompts: int = 16
    """Prompts of the regression."""
    context: int = 4
    """Examples in a prompt."""
    dim: int = 4
    """Dimension of the regression."""
    noise: float = 0.1
    """Label noise of the regression."""
    width: int = 32
    """Heads, and neurons, per layer."""
    head_dim: int = 4
    """Head dimension."""
    depth: int = 2
    """Layers."""
    weight_decay: float = 1e-3
    """Constant lambda of the decay."""
    images: int = 50
    """Training images of the digits flow."""
    vit_dim: int = 8
    """Token dimension of the digits flow."""
    vit_width: int = 8
    """Heads, and neurons, per layer of the digits flow."""
    max_gradients: int = 30_000
    """Gradients that one solve may spend."""
    least_squares_gradients: int = 350_000
    """The same for least squares, whose gradients are cheap."""
    seconds: float = 40.0
    """Seconds that one solve of an implicit or host method may spend."""
    least_squares_seconds: float = 240.0
    """The same for least squares."""
    method_seconds: float = 20.0
    """Seconds of one method on one problem after which its remaining settings are left out."""
    repeats: int = 2
    """Further runs of a short solve, for its best time."""
    host_parameters: int = 6000
    """Most parameters for scipy's methods, whose Jacobian is dense."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in self.problems:
            checks.choice("problem", name, PROBLEMS)
        for name in self.methods:
            checks.choice("method", name, _METHODS)
        if "RKC2" not in self.methods:
            raise ValueError("methods must hold RKC2, which the others are compared with")
        for name in (*self.tolerances, *self.steps):
            checks.positive("a tolerance or step", name)


_METHODS = Config.methods
PRESETS = {
    "tiny": Config(
        problems=("least_squares", "nonstiff"), methods=("RKC2", "gradient_flow", "Euler", "Heun"),
        tolerances=(1e-2, 1e-4), steps=(1.0,), reference_rtol=1e-6, dimension=64, condition=300.0,
        prompts=4, context=3, dim=2, width=2, depth=1, max_gradients=5000,
        least_squares_gradients=5000, seconds=5.0, method_seconds=5.0, repeats=0,
        mild_stiffness=2.0,
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Integrates every problem by every method, measures, draws and reports."""
    problems, methods = problems_of(config), _methods(config)
    rows, references = [], []
    for problem in problems:
        found, reference = _compared(problem, methods, config, progress)
        rows += found
        references.append(reference)
    compiled = compile_seconds(problems[-1], config.repeats)
    results = {
        "rows": [row._asdict() for row in rows],
        "references": [reference._asdict() for reference in references],
        "compile_seconds": compiled,
    }
    results["numbers"] = integrator_report.numbers(results)
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    integrator_report.draw(results, out_dir)
    return Outcome(
        arrays=columns(rows),
        report=integrator_page.page(results, config),
        summary=integrator_report.summary(results),
        data_checksums={p.name: p.sha256 for p in problems if p.sha256},
        seeds=[config.seed],
    )


def problems_of(config: Config) -> list[Problem]:
    """The problems that a configuration asks for."""
    made: list[Problem] = []
    if "least_squares" in config.problems:
        key = jax.random.key(config.seed)
        made.append(integrator_problems.least_squares(config.dimension, config.condition, key=key))
    if "digits" in config.problems:
        made += integrator_problems.digits(config)
    if {"regression_short", "regression_long", "nonstiff"} & set(config.problems):
        made += integrator_problems.regression(config)
    return made


def _methods(config: Config) -> dict[str, Method]:
    ratio = config.atol_ratio
    solvers = {
        "RKC2": ode.RKC2(), "Heun": diffrax.Heun(), "Bosh3": diffrax.Bosh3(),
        "Tsit5": diffrax.Tsit5(), "Dopri8": diffrax.Dopri8(),
    }  # fmt: skip
    methods: dict[str, Method] = {name: adaptive(solver, ratio) for name, solver in solvers.items()}
    methods |= {
        "gradient_flow": certified(ratio),
        "Euler": fixed_euler(),
        "RK4 at 1/λ": edge_of_stability(),
        "Kvaerno5": implicit(ratio),
    }
    for name in ("LSODA", "BDF"):
        methods[name] = scipy_method(name, ratio, config.host_parameters)
    return {name: methods[name] for name in config.methods}


def _compared(problem, methods, config, progress):
    """The rows of one problem and its reference."""
    quadratic = problem.family == "least_squares"
    limits = Limits(
        config.least_squares_gradients if quadratic else config.max_gradients,
        config.least_squares_seconds if quadratic else config.seconds,
        config.repeats,
    )
    truth, how = problem.exact, "closed form"
    if truth is None:
        how = f"RKC2 at rtol {config.reference_rtol:g}"
        tight = methods["RKC2"](problem, config.reference_rtol, limits._replace(repeats=0))
        truth = tight.theta
        if tight.stopped:
            how += f", stopped early: {tight.stopped}"
    rows, independent = [], (np.nan, "none")
    best = np.inf
    for name, method in methods.items():
        settings, spent = (config.steps if name in FIXED else config.tolerances), 0.0
        for setting in settings:
            # One tight run of an independent method is needed beside the reference.
            check = name == "Tsit5" and setting == min(settings) and best < np.inf
            if spent > config.method_seconds and not check:
                continue
            begin = time.perf_counter()
            solve = method(problem, setting, limits)
            spent += time.perf_counter() - begin - solve.compile_seconds
            found = row(problem, name, setting, solve, truth)
            rows.append(found)
            if progress:
                print(integrator_report.line(found))
            if name in ("Tsit5", "Dopri8") and not solve.stopped and setting < best:
                best, independent = setting, (found.error, f"{name} at rtol {setting:g}")
            if name not in FIXED and np.isnan(solve.seconds):
                break
    return measured(problem, truth, rows, how, independent)


def columns(rows: list[Row]) -> dict[str, np.ndarray]:
    """The record: one array for each thing measured."""
    return {name: np.array([getattr(row, name) for row in rows]) for name in Row._fields}
