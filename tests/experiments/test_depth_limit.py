"""The limit of infinite depth end to end, at the size of the suite, and its verdicts."""

import dataclasses

import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.global_convergence import depth_limit, depth_limit_facts, limit_checks
from meanfield import rates, store

TINY = depth_limit.PRESETS["tiny"]
WIDTHS, DEPTHS = np.repeat([[4.0, 8, 16, 32]], 3, axis=0).ravel(), np.repeat([2.0, 4, 8], 4)


def test_a_run_from_end_to_end(tmp_path):
    """Closed form: files and shapes as asked, and the fits of the record in the report."""
    out = tmp_path / "tiny"
    assert _cli.main(["depth_limit", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    run, text = store.load_run(out), (out / "report.md").read_text(encoding="utf-8")
    assert redrawn(out, tmp_path / "again") == {"order.png", "fluctuation.png", "laws.png"}
    assert run.arrays["order"]["tokens"].shape == (TINY.draws, len(TINY.layers))
    cells = len(TINY.widths) * len(TINY.depths)
    for name in depth_limit.COUPLINGS:
        errors = run.arrays["couplings"][name]
        assert errors["predictions"].shape == errors["risk"].shape == (TINY.seeds, cells)
        assert np.all(errors["to_limit"] > 0)
    for rows in run.arrays["risk"].values():
        assert np.all(np.diff(rows) < 0)
    fit = rates.log_log_slope(run.arrays["layers"], run.arrays["order"]["tokens"])
    assert limit_checks.said(fit) in text
    assert "They **" in text


def made_up(*, order=1.0, swapped=False, noise=0.02, in_depth=0.5):
    """A record of errors that obey known laws, up to noise."""
    rng = np.random.default_rng(0)

    def noisy(values):
        return values * np.exp(noise * rng.normal(size=(16, len(values))))

    layers = np.array([4.0, 8, 16, 32])
    couplings = {}
    for name in depth_limit.COUPLINGS:
        anew = (name == "independent") != swapped
        size = (WIDTHS * DEPTHS ** (2 * in_depth * anew)) ** -0.5
        couplings[name] = {
            "widths": WIDTHS,
            "depths": DEPTHS,
            "effective_widths": WIDTHS,
            "predictions": noisy(size),
            "risk": noisy(3 * size),
            "to_limit": noisy(size + 0.2 / DEPTHS),
            "reference_width": np.array(1e9),
            "reference_depths": np.full(12, 1e9),
        }
    error = {name: noisy(layers**-order) for name in ("tokens", "forces")}
    return {"layers": layers, "order": error, "couplings": couplings}


@pytest.mark.parametrize(
    ("options", "order", "couplings", "apart"),
    [
        ({}, True, True, True),
        ({"order": 2.0}, False, True, True),
        ({"swapped": True}, True, False, False),
        ({"noise": 3.0}, None, None, None),
        ({"in_depth": 0.25}, True, False, False),
    ],
)
def test_the_verdicts_follow_the_intervals(options, order, couplings, apart):
    """Closed form: errors that are known laws, the laws of the other coupling, or noise."""
    found = depth_limit_facts.facts(made_up(**options))
    of_order, of_couplings = depth_limit_facts.checks(found)
    assert limit_checks.together(of_order)[0] is order
    assert limit_checks.together(of_couplings)[0] is couplings
    assert depth_limit_facts.separation(found)[0] is apart
    slopes = [check.agrees for check in depth_limit_facts.in_depth(found)]
    assert slopes == {"swapped": [False, False], "in_depth": [False, True]}.get(
        next(iter(options), ""), [None, None] if "noise" in options else [True, True]
    )
    if not options:
        laws = found.couplings["independent"].laws
        np.testing.assert_allclose(laws["a/sqrt(LM) + b/L"].coefficients, [1, 0.2], rtol=0.1)


def test_a_law_along_the_depth():
    """Closed form: the values that the fit itself predicts at the configurations."""
    arrays = made_up()
    for name, errors in arrays["couplings"].items():
        errors["reference_width"], errors["reference_depths"] = np.array(64.0), np.full(12, 32.0)
        law = depth_limit_facts.LAW[name]
        fit = depth_limit_facts.facts(arrays).couplings[name].laws[law]
        drawn = [
            depth_limit_facts.law_values(errors, fit, law, depth, width)
            for width, depth in zip(WIDTHS, DEPTHS, strict=True)
        ]
        np.testing.assert_allclose(drawn, fit.predicted, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (4, 8)}, "widths must be 3 or more increasing numbers"),
        ({"widths": (3, 4, 8)}, "widths must divide 8, at which one program runs them all, got 3"),
        ({"depths": (4, 2, 1)}, "depths must be 3 or more increasing numbers"),
        ({"draws": 1}, "draws must be an integer >= 2, got 1"),
        ({"seeds": 7}, "seeds must be an integer >= 8, got 7"),
        ({"limit_depth": 4}, "limit_depth must be an integer >= 5, got 4"),
        ({"reference_width": 4}, "reference_width must be an integer >= 8, got 4"),
        ({"layers": (4, 8, 10)}, "layers must be multiples of 4"),
        ({"horizon": 0.0}, "horizon must be a finite number > 0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no such limit can be measured."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
