"""Risk against weight decay, at the size of the suite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.global_convergence import decay_ends, decay_problems, verdicts, weight_decay
from experiments.global_convergence import weight_decay_facts as decay_facts
from meanfield import flow, nn, store

TINY = weight_decay.PRESETS["tiny"]
CURVES = {"times", "curve"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny preset through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert _cli.main(["weight_decay", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out, store.load_run(out)


def test_a_run_leaves_its_record_and_figures(finished):
    """Closed form: the files and shapes that the configuration asks for, 0 at the end."""
    out, run = finished
    names = {path.name for path in out.iterdir()}
    assert names == {
        "record.npz", "manifest.json", "report.md", "risk.png", "curves.png", "certificate.png",
    }  # fmt: skip
    np.testing.assert_array_equal(run.arrays["decays"], [*TINY.decays, 0.0])
    for name in decay_facts.PROBLEMS:
        found = run.arrays[name]
        shape = (len(TINY.decays) + 1, TINY.seeds)
        assert all(values.shape[:2] == shape for values in found.values())
        assert np.all(found["risk"] > 0)
        assert np.all(found["energy"] >= found["risk"])
        # Less decay, less risk: each seed starts from the same particles.
        assert np.all(np.diff(found["risk"], axis=0) < 0)
        assert np.all(found["residual"] >= 0)
    convex = run.arrays["neurons"]
    positive = run.arrays["decays"] > 0
    # The rigorous infimum lies below what the search found.
    assert np.all(convex["gap"][positive] >= convex["searched_gap"][positive])
    assert np.all(np.isnan(run.arrays["transformer"]["gap"]))


def test_figures_are_drawn_again(finished, tmp_path):
    """Equality: figures drawn from record and manifest have the bytes of those of the run."""
    assert redrawn(finished[0], tmp_path / "again")


def test_stationary_runs_are_stationary(finished):
    """Closed form: -dQ/dtau <= settled lambda Q where the record says so."""
    _, run = finished
    rates = np.array([*TINY.decays, TINY.decays[-1]])[:, None]
    for name in decay_facts.PROBLEMS:
        found = run.arrays[name]
        stopped = found["result"] == decay_facts.STATIONARY
        assert stopped.any()
        bound = TINY.settled * rates * found["energy"]
        assert np.all(found["residual"][stopped] <= 1.001 * bound[stopped])


def test_the_report_says_what_was_measured(finished):
    """Closed form: the facts of the record, and the verdict that follows from them."""
    out, run = finished
    text = (out / "report.md").read_text(encoding="utf-8")
    found = decay_facts.facts(run.arrays)
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    agrees, because = decay_facts.verdict(found)
    assert f"This run **{word[agrees]}**: {because}" in text


def test_what_is_measured_at_the_end():
    """Finite difference: drift of the risk and residual from one short Euler step of the flow."""
    problem = decay_problems.neurons(samples=5, width=7, spread=1.0)
    theta = nn.Theta((), problem.model.network.init(jax.random.key(0), width=7), ())
    found = decay_ends.ends(problem, theta, decay=0.2, rate=0.2, effort=(2, 3, 1000))
    field = flow.gradient_field(problem.energy(0.2), problem.model.time_scales)
    velocity, step = field(0.0, theta), 1e-6
    ahead, behind = (
        jax.tree.map(lambda x, v, s=sign: x + s * step * v, theta, velocity) for sign in (1, -1)
    )
    change = (problem.risk(ahead) - problem.risk(behind)) / (2 * step)
    fall = (field.energy(ahead) - field.energy(behind)) / (2 * step)
    risk = float(problem.risk(theta))
    assert found["risk"] == pytest.approx(risk, rel=1e-12)
    assert found["drift"] == pytest.approx(abs(float(change)) / (0.2 * risk), rel=1e-6)
    assert found["residual"] == pytest.approx(-float(fall), rel=1e-6)
    largest = jnp.max(jnp.abs(theta.blocks[0].weight_out))
    np.testing.assert_allclose(found["largest"], [[largest]], rtol=1e-12)


DECAYS = np.array([0.1, 0.03, 0.01, 0.003, 0.0])


def made_up(power, *, out_of_time=(), noise=0.02):
    """A record of one problem with R = lambda^power up to a little noise over seeds."""
    rng = np.random.default_rng(0)
    risk = np.maximum(DECAYS, 1e-6)[:, None] ** power * np.exp(noise * rng.normal(size=(5, 3)))
    result = np.full(risk.shape, "stopped", dtype="U9")
    result[-1] = "completed"
    for row in out_of_time:
        result[row, 0] = "completed"
    ones = np.ones((*risk.shape, 2, 1))
    return {
        "risk": risk, "result": result, "energy": risk + DECAYS[:, None], "drift": 0.01 * risk,
        "gap": 0.1 * risk, "searched_gap": 0 * risk, "largest": 2 * ones,
        "force": ones * np.array([1.0, 3.0])[:, None] * 2 * DECAYS[:, None, None, None],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("powers", "options", "expected"),
    [
        ((1.0, 2.0), {}, True),
        ((1.5, 0.5), {}, False),
        ((1.5, 1.5), {"out_of_time": (2, 3)}, None),
        ((1.5, 1.5), {"out_of_time": (3,)}, True),
        ((1.0, 1.5), {"noise": 0.9}, None),
    ],
)
def test_the_verdict_follows_the_numbers(powers, options, expected):
    """Closed form: laws of known exponents; too few stationary decays, or noise, leave it open."""
    arrays = {"decays": DECAYS}
    for name, power in zip(decay_facts.PROBLEMS, powers, strict=True):
        arrays[name] = made_up(power, **options)
    found = decay_facts.facts(arrays)
    if options.get("noise", 0.0) < 0.1 and found["neurons"].law is not None:
        assert found["neurons"].law.mean == pytest.approx(powers[0], abs=0.05)
    assert decay_facts.verdict(found)[0] is expected


def test_runs_that_diverged_are_named():
    """Closed form: one of them, with its reason; none where there is none."""
    arrays = {"decays": DECAYS} | {name: made_up(1.0) for name in decay_facts.PROBLEMS}
    for name in decay_facts.PROBLEMS:
        arrays[name]["message"] = np.full(arrays[name]["result"].shape, "blew up at time 3")
    assert decay_facts.broken(arrays) == []
    arrays["transformer"]["result"][1, 2] = "diverged"
    said = "Transformer in context, λ = 0.03, seed 2: blew up at time 3"
    assert decay_facts.broken(arrays) == [said]


def test_a_ladder():
    """Closed form: which decays are fitted, exponents between neighbours, forces, bounds of Q*."""
    found = decay_facts.ladder(DECAYS, made_up(2.0, out_of_time=(0,), noise=0.0))
    np.testing.assert_array_equal(found.fitted, [0.03, 0.01, 0.003])
    np.testing.assert_allclose(found.local, [2.0, 2.0], rtol=1e-9)
    assert found.worst == pytest.approx(0.03)
    assert found.force == pytest.approx((1.0, 1.0, 3.0))
    assert found.runs == 9
    assert found.descents == 0
    energies = np.array([0.03, 0.01, 0.003]) + np.array([0.03, 0.01, 0.003]) ** 2
    np.testing.assert_allclose(found.optimum[:, 1], energies, rtol=1e-12)
    np.testing.assert_allclose(
        found.optimum[:, 0], energies - 0.1 * np.array([0.03, 0.01, 0.003]) ** 2, rtol=1e-12
    )


def test_runs_that_could_still_descend_are_counted():
    """Closed form: a searched gap of a fifth of Q, in one run."""
    record = made_up(2.0)
    record["searched_gap"][1, 2] = 0.2 * record["energy"][1, 2]
    assert decay_facts.ladder(DECAYS, record).descents == 1


def test_the_interval_holds_the_misfit_of_the_line():
    """Closed form: seeds that agree exactly on a bent curve leave the interval of its residuals."""
    record = made_up(1.0, noise=0.0)
    record["risk"] = record["risk"] * np.array([1.0, 2.0, 2.0, 1.0, 1.0])[:, None]
    found = decay_facts.ladder(DECAYS, record)
    assert found.law is not None
    assert found.law.high - found.law.low > 0.3
    assert verdicts.said(found.law).startswith(f"{found.line.slope:.2f}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decays": (0.1, 0.01)}, "decays must be three or more decreasing numbers"),
        ({"decays": (0.01, 0.03, 0.1)}, "decays must be three or more decreasing numbers"),
        ({"decays": (0.1, 0.01, 0.0)}, "decays must be a finite number > 0, got 0.0"),
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"settled": 0.0}, "settled must be a finite number > 0, got 0.0"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"saves": 2}, "saves must be an integer >= 4, got 2"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
