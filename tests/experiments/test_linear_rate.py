"""Bounds and rates of one attention layer, at the size of the suite."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

from experiments import _cli
from experiments.attention_kernels import linear_rate, linear_rate_facts
from meanfield import store

TINY = linear_rate.PRESETS["tiny"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny preset through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert _cli.main(["linear_rate", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out, store.load_run(out)


def test_a_run_leaves_its_record_and_figures(finished):
    """Closed form: files, ratios HD/(Nn), ranks, and as many iterates as were asked for."""
    out, run = finished
    names = {path.name for path in out.iterdir()}
    figures = {"curves.png", "rates.png", "all.png"}
    assert names == {"record.npz", "manifest.json", "report.md"} | figures
    ratios = {"samples": [2.0, 1.0], "dim": [0.5, 1.0], "heads": [0.5, 1.0]}
    for kernel in linear_rate_facts.KERNELS:
        for axis, expected in ratios.items():
            scan = run.arrays[kernel][axis]
            np.testing.assert_array_equal(scan["ratio"], expected)
            rank = np.minimum(scan["rows"], scan["size"][:, 1] * scan["size"][:, 2])
            np.testing.assert_array_equal(scan["rank"], np.repeat(rank[:, None], 3, axis=1))
            assert np.all((scan["pl"] > 0) == (scan["ratio"] >= 1)[:, None])
            assert np.all((scan["unfitted"] > 1e-12) == (scan["ratio"] < 1)[:, None])
            assert np.all(scan["value"]["times"][:, -1] == TINY.steps)
        np.testing.assert_array_equal(run.arrays[kernel]["all"]["ratio"], [1.0])
    found = linear_rate_facts.facts(run.arrays)
    # Four sizes, two kernels, three seeds; all three matrices at one of the sizes.
    assert found.runs == {"value": 24, "all": 6}
    assert found.iterates == {"value": 24 * 65, "all": 6 * 17}
    assert found.below == 12


def test_the_report_says_what_was_counted(finished):
    """Closed form: the verdict follows from the record, and the bounds hold."""
    out, run = finished
    text = (out / "report.md").read_text(encoding="utf-8")
    agrees, because = linear_rate_facts.verdict(linear_rate_facts.facts(run.arrays))
    assert agrees is True
    assert f"This run **agrees**: {because}" in text
    assert "| iterates above the bound, W^V alone | ≤ 0 | 0 | agrees |" in text


def changed(arrays, spoil):
    """The record after one of its cells was spoilt."""
    record = copy.deepcopy(jax.tree.map(np.array, arrays))
    spoil(record["gaussian"]["heads"])
    return linear_rate_facts.facts(record)


def test_what_does_not_agree_is_seen(finished):
    """Closed form: one iterate too high, one rank too low, one rate too slow, one fit too good."""
    arrays = finished[1].arrays

    def violated(scan):
        scan["value"]["violations"][0, 0] = 1

    def deficient(scan):
        scan["rank"][1, 0] = 3

    def slow(scan):
        scan["value"]["predicted"][1, 0] = 2 * scan["value"]["observed"][1, 0, 0]

    def fits(scan):
        scan["value"]["risks"][0, 0, -1] = scan["unfitted"][0, 0] / 2

    for spoil in (violated, deficient, slow, fits):
        agrees, because = linear_rate_facts.verdict(changed(arrays, spoil))
        assert agrees is False
        assert because.startswith("5 of 6 checks agree. Not met: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": 3}, "outputs must be at most head_dim = 2, got 3"),
        ({"factors": (0.25, 1.0)}, "factors must give whole numbers, got 0.25 of samples = 2"),
        ({"factors": (0.5, 2.0)}, "factors must increase and hold 1"),
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
        ({"steps": 8}, "steps must be an integer >= 16, got 8"),
        ({"bandwidth": 0.0}, "bandwidth must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
