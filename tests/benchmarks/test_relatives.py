import json
import math
from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from benchmarks import __main__ as benchmarks
from benchmarks import relatives, relatives_report
from benchmarks.integrator_deflated import Deflated, KrylovDeflated
from benchmarks.integrator_krylov import Krylov, phis
from benchmarks.integrator_relatives import RKL2
from benchmarks.integrator_rock import ROCK4
from benchmarks.integrator_rock_schemes import schemes
from meanfield import ode, store

STAGES = 24
SCALE = np.repeat([1.0, 2.0], 3)
RELATIVES = {
    "RKL2": (RKL2(max_stages=STAGES), 2),
    "ROCK4": (ROCK4(max_stages=STAGES), 4),
    "ROCK4, damped": (ROCK4(damping=1 / 3, max_stages=STAGES), 4),
    "Krylov 2": (Krylov(SCALE, 1e-12, 1e-12), 2),
    "Krylov 3": (Krylov(SCALE, 1e-12, 1e-12, corrected=True), 3),
    "Krylov + RKC2": (KrylovDeflated(SCALE, 1e-12, 1e-12), 2),
    "deflation": (Deflated(SCALE, rank=2, free=True), 2),
}


def symmetric(seed, values):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (basis * values) @ basis.T


LINEAR = symmetric(0, np.geomspace(0.2, 60.0, 6))
COUPLED = symmetric(1, np.geomspace(0.2, 2.0, 6))


def linear(t, y, args):
    return -(SCALE**2) * (LINEAR @ y)


def curved(t, y, args):
    """The gradient flow of a quadratic and a quartic energy, in a metric."""
    return -(SCALE**2) * (COUPLED @ y + COUPLED @ (COUPLED @ y) ** 3)


def solved(field, solver, start, **options) -> Any:
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, 1.0, options.pop("dt0", 1e-3), jnp.asarray(start),
        max_steps=5000, adjoint=diffrax.ForwardMode(), **options,
    )  # fmt: skip


def adaptively(field, solver, start, rtol) -> Any:
    controller = ode.Ledger(diffrax.PIDController(rtol=rtol, atol=rtol / 100))
    save = diffrax.SaveAt(t1=True, controller_state=True)
    return solved(field, solver, start, stepsize_controller=controller, saveat=save)


START = np.linspace(-1.0, 1.5, 6)


@pytest.mark.parametrize("name", RELATIVES)
def test_linear_flow(name):
    """Closed form: exponential of the symmetrised matrix, in numpy."""
    solver, order = RELATIVES[name]
    rtol = 1e-5
    if name.startswith("Krylov"):
        solver = type(solver)(SCALE, rtol, rtol / 100)
    found = adaptively(linear, solver, START, rtol)
    values, vectors = np.linalg.eigh(SCALE[:, None] * LINEAR * SCALE)
    exact = SCALE * (vectors * np.exp(-values) @ vectors.T @ (START / SCALE))
    assert np.linalg.norm(found.ys[-1] - exact) < 10 * rtol * np.linalg.norm(exact)
    attempted = int(found.stats["num_steps"])
    assert found.controller_state.evaluations >= order * attempted


@pytest.mark.parametrize("name", RELATIVES)
def test_order(name):
    """Order of convergence: that of the method, over four halvings of the step."""
    solver, order = RELATIVES[name]
    exact = integrate.solve_ivp(
        lambda t, y: curved(t, y, None), (0.0, 1.0), START, method="DOP853", rtol=1e-12, atol=1e-13
    ).y[:, -1]
    # Where the number of stages still falls with the step, errors jump between two halvings.
    counts = 2 ** (np.arange(5) + {2: 8, 3: 7, 4: 5}[order])
    errors = []
    for count in counts:
        save = {"stepsize_controller": diffrax.ConstantStepSize(), "dt0": 1 / count}
        errors.append(np.linalg.norm(solved(curved, solver, START, **save).ys[-1] - exact))
    slope = np.polyfit(np.log2(counts), -np.log2(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


def of_rock(scheme, z):
    """R(z), stage by stage."""
    before, now = np.zeros_like(z), np.ones_like(z)
    for mu, nu, kappa in scheme.recursion:
        before, now = now, (mu * z + nu) * now + kappa * before
    slopes = np.zeros((4, len(z)), z.dtype)
    for row in range(4):
        slopes[row] = z * (now + scheme.matrix[row] @ slopes)
    return now + scheme.weights @ slopes


@pytest.mark.parametrize("damping", [0.95, 1 / 3])
def test_rock_polynomials_are_stable(damping):
    """Theorem: |R| <= 1 on the interval that is claimed, <= the damping beyond z = -5, order 4."""
    circle = 0.5 * np.exp(2j * np.pi * np.arange(32) / 32)
    for scheme in schemes(STAGES, damping):
        z = -scheme.interval * np.linspace(0, 1, 2000)
        end = of_rock(scheme, z)
        assert np.abs(end).max() < 1 + 1e-9
        assert np.abs(end[z < -5]).max(initial=0) < 1.01 * damping
        taylor = (np.fft.fft(of_rock(scheme, circle)) / 32).real[:5] / 0.5 ** np.arange(5)
        np.testing.assert_allclose(taylor, [1, 1, 1 / 2, 1 / 6, 1 / 24], rtol=0, atol=1e-11)


def test_phis():
    """Closed form: their definitions, where those do not cancel, and their values at zero."""
    z = np.array([-40.0, -3.0, -0.71, -0.69, 0.5, 2.0])
    one = np.expm1(z) / z
    two = (one - 1) / z
    expected = (one, two, (two - 0.5) / z)
    for found, value in zip(phis(jnp.asarray(z)), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-13)
    for found, zero in zip(phis(jnp.zeros(1)), (1, 1 / 2, 1 / 6), strict=True):
        np.testing.assert_allclose(found, zero, rtol=1e-15)


def test_a_space_too_small_is_refused():
    """Closed form: two vectors cannot hold six modes over this time; shorter steps can."""
    solver = Krylov(SCALE, 1e-4, 1e-6, max_space=2)
    small = adaptively(linear, solver, START, 1e-4)
    large = adaptively(linear, Krylov(SCALE, 1e-4, 1e-6), START, 1e-4)
    assert small.stats["num_rejected_steps"] > large.stats["num_rejected_steps"]
    np.testing.assert_allclose(small.ys[-1], large.ys[-1], rtol=0, atol=1e-3)


def test_cost_at_an_error():
    """Closed form: a power law between two runs written down here."""

    def run(cost, error, stopped=""):
        return {"gradients": cost, "error": error, "stopped": stopped}

    runs = [run(100, 1e-1), run(400, 1e-3), run(300, 0.5), run(150, 1e-6, "spent")]
    assert relatives_report.cost_at(runs, "gradients", 1e-2) == pytest.approx(200)
    assert relatives_report.cost_at(runs, "gradients", 0.3) == pytest.approx(100)
    assert math.isnan(relatives_report.cost_at(runs, "gradients", 1e-4))


def test_the_verdict_follows_the_costs():
    """Closed form: gains written down here, their geometric mean in the head."""

    def results(first, second):
        return {
            "costs": [
                {"goal": 0.01, "cost": cost, "problem": p, "method": m, "value": 1 / g, "gain": g}
                for cost in ("gradients", "seconds")
                for p, gain in (("a", first), ("b", second))
                for m, g in (("RKC2", 1.0), ("RKL2", gain))
            ]
        }

    assert relatives_report.mean_gains(results(2.0, 0.5)) == {"RKL2": pytest.approx(1.0)}
    assert "none does; the nearest is RKL2 with 1.00" in relatives_report.verdict(results(2, 0.5))
    assert "RKL2 on a: 2.00 in gradients" in relatives_report.verdict(results(2, 0.5))
    assert "**RKL2** would" in relatives_report.verdict(results(2.0, 2.0))
    assert "none reaches that error" in relatives_report.verdict(results(2.0, math.nan))


def test_tiny_run(tmp_path):
    """Theorem: on least squares the runs at the tight tolerance agree with the closed form."""
    out = tmp_path / "tiny"
    words = ["relatives", "--preset", "tiny", "--quiet", "--out", str(out)]
    assert benchmarks.main(words) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {row["method"] for row in results["rows"]} == {"RKC2", "RKL2", "Krylov 2"}
    for row in results["rows"]:
        assert not row["stopped"]
        assert row["error"] < (3e-3 if row["setting"] > 1e-3 else 3e-4)
    arrays, manifest = store.load_run(out)
    assert len(arrays["error"]) == len(results["rows"])
    assert manifest["device"]["x64"]
    assert "## Every run" in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "work_precision.png").stat().st_size > 10_000


@pytest.mark.parametrize("words", [("--methods", "RKL2"), ("--sizes", "huge")])
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["relatives", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_presets_hold_every_relative():
    """House rule: the default preset compares all that the program knows, each in its colour."""
    assert set(relatives.PRESETS["default"].methods) == set(relatives_report.COLORS)
