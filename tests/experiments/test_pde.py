"""The equation on a grid against particles, at the size of the suite."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import redrawn, round_off
from PIL import Image

from experiments import _cli
from experiments.global_convergence import pde, pde_errors, pde_facts, verdicts
from experiments.global_convergence import scalar_transformer as scalar
from meanfield import flow, kept, measure, nn, store

TINY = pde.PRESETS["tiny"]
GIVEN = scalar.data(5, samples=4, tokens=3, weight_decay=0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny preset through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert _cli.main(["pde", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out, store.load_run(out)


def test_a_run_leaves_its_record_and_figures(finished):
    """Closed form: the files and shapes that the configuration asks for."""
    out, run = finished
    names = {path.name for path in out.iterdir()}
    assert names == {
        "record.npz", "manifest.json", "report.md", "densities.png", "rates.png", "equation.png",
        "flow.gif",
    }  # fmt: skip
    rows = 2 * TINY.depth
    assert run.arrays["density"].shape == (TINY.saves, rows, TINY.finest, TINY.finest)
    assert run.arrays["shown"].shape == (TINY.saves, rows, TINY.shown, 2)
    for values in run.arrays["errors"].values():
        assert values.shape == (TINY.seeds, len(TINY.widths))
        assert np.all(values > 0)
    with Image.open(out / "flow.gif") as animation:
        assert animation.n_frames == TINY.saves
    assert (out / "flow.gif").stat().st_size < 2e6


def test_figures_are_drawn_again(finished, tmp_path):
    """Equality: figures drawn from record and manifest have the bytes of those of the run."""
    assert redrawn(finished[0], tmp_path / "again")


def test_the_equation_was_solved(finished):
    """Theorem: mass is kept, densities stay positive, the energy falls by what is dissipated."""
    found = pde_facts.facts(finished[1].arrays)
    checks = {check.quantity: check.agrees for check in pde_facts.equation(found)}
    del checks["order in L¹ under refinement"]  # four small grids do not settle it
    assert all(checks.values()), checks
    assert found.weak < 0.01 * found.doctored


def test_the_report_says_what_was_measured(finished):
    """Closed form: the facts of the record, and the verdict that follows from them."""
    out, run = finished
    text = (out / "report.md").read_text(encoding="utf-8")
    found = pde_facts.facts(run.arrays)
    for fit in (found.order, found.slopes["prediction"], found.slopes["plane"]):
        assert verdicts.said(verdicts.of_slope(fit)) in text
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    agrees, because = pde_facts.verdict(found)
    assert f"This run **{word[agrees]}**: {because}" in text


def test_particles_that_diverge_end_the_run(monkeypatch):
    """House rule: when and why is said, for there is nothing to compare beyond that time."""
    grid = measure.uniform_grid([-3.0, -3.0], [3.0, 3.0], [8, 8])
    density = jnp.full((1, 2, 8, 8), 1 / 36)
    solved = grid, types.SimpleNamespace(density=density, times=np.array([0.0, 1.0]))
    ended = types.SimpleNamespace(
        result="diverged", message="stopped at time 0.3 of 1.5: it blew up"
    )
    monkeypatch.setattr(pde.flow, "gradient_flow", lambda *args, **options: ended)
    with pytest.raises(ValueError, match="must reach the horizon: stopped at time 0.3 of 1.5: it"):
        pde._particles(TINY, GIVEN, solved, kept.NOTHING, progress=False)


def test_scalar_network_against_the_library():
    """Independent path: the same heads and neurons as blocks of a network, with its energy."""
    depth, width = 2, 5
    clouds = jnp.asarray(np.random.default_rng(0).normal(size=(2 * depth, width, 2)))

    def block(update):
        def particle(tokens, theta, mask):
            return update(tokens[None, :, 0], theta[None])[0]

        return nn.block(particle, lambda key: jax.random.normal(key, (2,)))

    network = nn.network([block(scalar.heads), block(scalar.neurons)], depth=depth)
    model = nn.model(nn.identity(), network, nn.label_read())
    theta = nn.Theta((), (clouds[::2], clouds[1::2]), ())
    risk = flow.empirical_risk(model.apply, GIVEN.tokens[..., None], GIVEN.labels)
    energy = flow.energy(risk, model.decay_scales, weight_decay=0.1)
    expected, slope = jax.value_and_grad(energy)(theta)
    found = scalar.many_energies(GIVEN, clouds[None])[0]
    np.testing.assert_allclose(found, expected, rtol=round_off())
    velocity = scalar.networks(GIVEN)(0.0, (clouds[None],))[0][0]
    for kind in (0, 1):
        by_hand = -depth * width * slope.blocks[kind]
        np.testing.assert_allclose(velocity[kind::2], by_hand, rtol=1e-9, atol=1e-12)


def test_errors_against_loops():
    """Numpy loop: sup over times of the rms of predictions, and the histogram, by hand."""
    grid = measure.uniform_grid([-3.0, -3.0], [3.0, 3.0], [8, 8])
    rng = np.random.default_rng(1)
    density = rng.uniform(size=(3, 2, 8, 8))
    density /= density.sum(axis=(2, 3), keepdims=True) * float(grid.volume)
    clouds = rng.uniform(-2.9, 2.9, size=(3, 4, 2, 6, 2))
    solved = measure.DensityFlow(
        np.arange(3.0), jnp.asarray(density), jnp.zeros((3, 2)), 0.0, jnp.zeros(2), 1, 0,
        "completed", "", (),
    )  # fmt: skip
    found = pde_errors.errors(GIVEN, grid, solved, {6: clouds}, bins=4)
    for seed in range(4):
        gaps = []
        for time in range(3):
            pair = measure.weighted_particles(density[time], grid)
            limit = scalar.outputs(GIVEN, *pair)
            network = scalar.outputs(
                GIVEN, jnp.full((2, 6), 1 / 6), jnp.asarray(clouds[time, seed])
            )
            gaps.append(np.sqrt(np.mean((network - limit) ** 2)))
        np.testing.assert_allclose(found["prediction"][seed, 0], max(gaps), rtol=1e-9)
        distance = 0.0
        for row in range(2):
            for i in range(4):
                for j in range(4):
                    inside = np.floor((clouds[2, seed, row] + 3) / 1.5) == [i, j]
                    share = density[2, row, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum()
                    mass = share * float(grid.volume)
                    distance += abs(inside.all(axis=1).mean() - mass) / 2
        np.testing.assert_allclose(found["histogram"][seed, 0], distance, rtol=1e-9)


def made_up(*, rate=-0.5, excess=0.0, order=1.5, rise=0.0, weak=1e-5, mass=1e-15, noise=0.02):
    """A record whose errors are power laws up to a little noise over seeds."""
    rng, widths = np.random.default_rng(0), np.array([16, 32, 64, 128])
    draws = rng.normal(size=(5, 4))
    # Around no noise: what is not decided is so because intervals are wide, not by a lucky draw.
    noise = np.exp(noise * (draws - draws.mean(axis=0)))
    energy = np.array([2.0, 1.5, 1.25, 1.2 + rise])
    cells = np.array([16, 24, 32, 48])
    averages = dict.fromkeys(pde_facts.AVERAGES, noise * widths**rate)
    return {
        "mass_error": mass, "least": 0.0, "blocked": 0.0, "energy": energy, "depth": 2,
        "dissipated": np.stack([energy[0] - energy] * 2, axis=1), "cells": cells,
        "gaps": cells ** float(-order), "floor": 1e-4, "widths": widths, "completed": True,
        "errors": averages | {"draws": noise * widths**-0.43,
                              "plane": noise[::-1] * widths ** (excess - 0.43)},
        "weak": {"rate": np.ones((3, 2, 1)), "residual": np.full((3, 2, 1), weak),
                 "doctored": np.full((3, 2, 1), 0.03)},
        "balance": 1e-4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"rate": -0.25}, False),
        ({"noise": 0.8}, None),
        ({"excess": 0.3}, False),
        ({"order": 0.7}, False),
        ({"rise": 0.2}, False),
        ({"weak": 0.02}, False),
        ({"mass": 1e-6}, False),
    ],
)
def test_the_verdict_follows_the_numbers(change, expected):
    """Closed form: power laws of known exponents, an energy that rises, mass that is lost."""
    found = pde_facts.facts(made_up(**change))
    if "noise" not in change:
        assert found.slopes["prediction"].slope == pytest.approx(change.get("rate", -0.5), abs=0.02)
    assert found.order.slope == pytest.approx(change.get("order", 1.5), rel=1e-9)
    assert pde_facts.verdict(found)[0] is expected


def test_a_grid_that_did_not_finish_decides_nothing():
    """Closed form: a run cut short leaves the claim open."""
    found = pde_facts.facts(made_up() | {"completed": False})
    assert pde_facts.verdict(found)[0] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": (8, 16)}, "cells must be three or more increasing numbers"),
        ({"cells": (16, 8, 4)}, "cells must be three or more increasing numbers"),
        ({"cells": (2, 8, 16)}, "cells must be an integer >= 4, got 2"),
        ({"widths": (8, 16)}, "widths must be three or more increasing numbers"),
        ({"shown": 7}, "shown must be one of the widths"),
        ({"bins": 5}, "bins must divide the 32 cells"),
        ({"radius": 4.0}, "half must exceed"),
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"horizon": 0.0}, "horizon must be a finite number > 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
