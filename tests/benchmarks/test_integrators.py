import json
import math

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import integrator_counts, integrator_peers, integrator_problems, integrator_report
from benchmarks import integrators as program
from meanfield import ode, store


@pytest.fixture(scope="module")
def quadratic():
    return integrator_problems.least_squares(8, 20.0, key=jax.random.key(0))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["integrators", "--preset", "tiny", "--quiet", "--out", str(out)]
    assert benchmarks.main(words) == 0
    return out


LIMITS = integrator_peers.Limits(gradients=4000, seconds=60.0, repeats=0)


def test_least_squares_solution(quadratic):
    """Closed form: matrix exponential of the dense Hessian, in numpy."""
    field, start = quadratic.field, quadratic.start
    hessian = np.asarray(jax.hessian(field.energy)(start))
    values, vectors = np.linalg.eigh(hessian)
    assert values[-1] / values[0] == pytest.approx(20.0)
    minimum = np.linalg.solve(hessian, -np.asarray(jax.grad(field.energy)(start)))
    decay = vectors * np.exp(-values * quadratic.horizon) @ vectors.T
    np.testing.assert_allclose(quadratic.exact, minimum - decay @ minimum, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "solver", [diffrax.Heun(), diffrax.Bosh3(), diffrax.Tsit5(), ode.RKC2()], ids=str
)
def test_counts_are_those_of_a_callback(quadratic, solver):
    """Independent library: evaluations as jax's callbacks see them in the running program."""
    method = integrator_peers.adaptive(solver, 0.1)
    cost = method(quadratic, 1e-3, LIMITS).cost
    meter = integrator_counts.Meter()
    field = integrator_counts.counted(quadratic.field, meter)
    # No part of a field, but jit must see a function of its inputs.
    wrapped = quadratic._replace(field=jax.tree_util.Partial(field))
    meter.start(seconds=math.inf, gradients=math.inf)
    integrator_peers.adaptive(solver, 0.1)(wrapped, 1e-3, LIMITS)
    jax.effects_barrier()
    assert cost.accepted > 5
    assert meter.products == cost.products
    # The evaluation under each product is part of the product; the first step was chosen before.
    assert meter.evaluations - meter.products == cost.evaluations - integrator_counts.FIRST_STEP


def test_edge_of_stability_is_classical(quadratic):
    """Order of convergence: four, over four halvings of the step."""
    method = integrator_peers.edge_of_stability()
    solves = [method(quadratic, 0.8 / 2**k, LIMITS) for k in range(5)]
    errors = [float(jnp.linalg.norm(s.theta - quadratic.exact)) for s in solves]
    slope = np.polyfit(np.arange(5), -np.log2(errors), 1)[0]
    assert slope == pytest.approx(4, abs=0.1)
    assert solves[1].cost.evaluations == 4 * solves[1].cost.accepted
    assert solves[0].cost.products > 0


def test_a_solve_that_is_cut_short_says_so(quadratic):
    """Closed form: 32 gradients cannot take Heun's method over 20 times its stability limit."""
    short = LIMITS._replace(gradients=32)
    solve = integrator_peers.adaptive(diffrax.Heun(), 0.1)(quadratic, 1e-8, short)
    assert solve.stopped
    assert 0 < solve.reached < quadratic.horizon
    assert solve.cost.evaluations == 2 * 16 + integrator_counts.FIRST_STEP
    refused = integrator_peers.fixed_euler()(quadratic, 1e-3, short)
    assert refused.stopped
    assert refused.cost.evaluations == 0


def test_ratios():
    """Closed form: costs of four runs written down here."""

    def row(method, cost, error, stopped=""):
        return {
            "problem": "p", "method": method, "gradients": cost, "error": error, "stopped": stopped
        }  # fmt: skip

    rows = [row("RKC2", 10, 0.5), row("RKC2", 20, 0.01), row("Tsit5", 60, 0.001)]
    found = integrator_report.ratio(rows, "p", "gradients")
    assert found == (3.0, 20, 60, "Tsit5", False)
    rows[2] = row("Tsit5", 100, 0.001, "its gradients were spent")
    assert integrator_report.ratio(rows, "p", "gradients") == (5.0, 20, 100, "Tsit5", True)
    assert math.isnan(integrator_report.ratio(rows[:1], "p", "gradients").value)


def test_tiny_run(tiny):
    """Theorem: on least squares the runs at the tight tolerance agree with the closed form."""
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    rows = [row for row in results["rows"] if row["problem"] == "least_squares"]
    assert {row["method"] for row in rows} == {"RKC2", "gradient_flow", "Euler", "Heun"}
    for row in rows:
        assert not row["stopped"]
        assert row["error"] < (3e-3 if row["setting"] > 1e-3 else 3e-4)
        assert row["sharpness_error"] < 1e-6
    assert {n["met"] for n in results["numbers"]} <= {True, False, None}
    arrays, manifest = store.load_run(tiny)
    assert len(arrays["error"]) == len(results["rows"])
    assert manifest["device"]["x64"]
    page = (tiny / "report.md").read_text(encoding="utf-8")
    assert "## Asked and measured" in page
    assert (tiny / "work_precision.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "words", [("--methods", "Euler"), ("--problems", "weather"), ("--tolerances", "0")]
)
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["integrators", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_presets_hold_every_default():
    """House rule: the default preset compares all that the program knows."""
    assert set(program.PRESETS["default"].methods) == set(integrator_report.COLORS)
