"""The limit of infinite width end to end, at the size of the suite, and its verdicts."""

import dataclasses

import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.global_convergence import limit_checks, width_limit, width_limit_facts
from meanfield import rates, store

TINY = width_limit.PRESETS["tiny"]
WIDTHS = np.array([8, 16, 32, 64])


def test_a_run_from_end_to_end(tmp_path):
    """Closed form: files and shapes as asked, and the fits of the record in the report."""
    out = tmp_path / "tiny"
    assert _cli.main(["width_limit", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    run, text = store.load_run(out), (out / "report.md").read_text(encoding="utf-8")
    assert redrawn(out, tmp_path / "again") == {"errors.png", "limit.png", "predictions.png"}
    for draw in width_limit_facts.DRAWS:
        for name in width_limit_facts.NAMES:
            assert run.arrays[draw][name].shape == (TINY.seeds, len(TINY.widths))
            assert np.all(run.arrays[draw][name] > 0)
    trained = run.arrays["trained"]
    assert trained["predictions"].shape == (TINY.seeds, 4, TINY.saves, TINY.probes)
    assert np.all(np.diff(trained["risk"].mean(axis=0), axis=-1) < 0)
    limit = rates.infinite_width(trained["risk"][:, :-1], np.array(TINY.widths))
    assert f"{limit.value[-1]:.4g} (95 % interval [{limit.low[-1]:.4g}," in text
    fit = rates.log_log_slope(
        run.arrays["nested"]["effective_widths"], run.arrays["nested"]["heads"]
    )
    assert limit_checks.said(fit) in text


def made_up(*, slope=-0.5, noise=0.02, shift=0.0, spread=0.01, ahead=0.0):
    """A record whose errors, limits and exact values are known, up to noise."""
    rng = np.random.default_rng(0)

    def errors(size):
        return size * WIDTHS**slope * np.exp(noise * rng.normal(size=(16, len(WIDTHS))))

    one = {
        "effective_widths": WIDTHS.astype(float),
        "reference": np.array(1e9),
        **{name: errors(2 + place) for place, name in enumerate(width_limit_facts.NAMES)},
    }
    wider = np.append(WIDTHS, 512)

    def values(*tail):
        widths = wider.reshape(-1, *[1] * len(tail))
        return 1 + 1 / widths + spread / np.sqrt(widths) * rng.normal(size=(16, 5, *tail))

    trained = {"risk": values(3), "predictions": values(3, 2)}
    trained["risk"][:, -1] += ahead
    return {
        "widths": WIDTHS,
        "reference": np.array(512),
        "times": np.arange(3.0),
        "nested": one,
        "anew": one,
        "trained": trained,
        "linear": {
            "risk": values(3)[:, :-1],
            "predictions": values(3, 2)[:, :-1],
            "exact_risk": np.full(3, 1 + shift),
            "exact_predictions": np.full((3, 2), 1 + shift),
        },
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"slope": -0.4}, False), ({"slope": -1.0}, False), ({"noise": 1.0}, None)],
)
def test_the_verdict_on_the_rate(options, expected):
    """Closed form: errors of a known slope, and noise."""
    found = width_limit_facts.facts(made_up(**options), tolerance=0.05)
    assert limit_checks.together(width_limit_facts.checks(found))[0] is expected


def test_the_width_that_a_tolerance_asks_for():
    """Closed form: 2/sqrt(M) is 0.05 at M = 1600."""
    found = width_limit_facts.facts(made_up(noise=1e-6), tolerance=0.05)
    np.testing.assert_allclose(found.reach, 1600, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"), [({}, True), ({"shift": 0.1}, False), ({"spread": 5.0}, None)]
)
def test_the_verdict_on_the_known_limit(options, expected):
    """Closed form: values that tend to 1, with an exact value that is 1 or is not, and noise."""
    found = width_limit_facts.facts(made_up(**options), tolerance=0.05)
    agrees, because = width_limit_facts.covered(found)
    assert agrees is expected
    assert "of 9 intervals" in because


@pytest.mark.parametrize(("ahead", "expected"), [(0.0, True), (0.2, False)])
def test_networks_that_the_extrapolation_has_not_seen(ahead, expected):
    """Closed form: 1 + 1/512, and something else."""
    arrays = made_up(ahead=ahead)
    found = width_limit_facts.facts(arrays, tolerance=0.05)
    assert width_limit_facts.seen_ahead(found)[0] is expected
    mean, half = width_limit_facts.excess(arrays, found)
    assert np.all(np.abs(mean[:-1] - 1 / WIDTHS) < 3 * half[:-1])
    assert np.all(half < 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (4, 8)}, "widths must be 3 or more increasing numbers"),
        ({"widths": (3, 4, 8)}, "widths must divide 16, at which one program runs them all"),
        ({"reference": 8}, "reference must be an integer >= 9, got 8"),
        ({"seeds": 7}, "seeds must be an integer >= 8, got 7"),
        ({"tolerance": 0.0}, "tolerance must be a finite number > 0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no such limit can be measured."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
