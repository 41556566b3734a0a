"""Bounds and rates of one attention layer, at the size of the suite."""

import copy
import dataclasses

import jax
import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.attention_kernels import linear_rate, linear_rate_cells, linear_rate_facts
from meanfield import store, theory

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
    assert linear_rate_facts.axes(run.arrays) == ["heads"]
    for kernel in linear_rate_facts.KERNELS:
        scan = run.arrays[kernel]["heads"]
        np.testing.assert_array_equal(scan["ratio"], [0.5, 1.0])
        rank = np.minimum(scan["rows"], scan["size"][:, 1] * scan["size"][:, 2])
        np.testing.assert_array_equal(scan["rank"], np.repeat(rank[:, None], 3, axis=1))
        assert np.all((scan["pl"] > 0) == (scan["ratio"] >= 1)[:, None])
        assert np.all((scan["unfitted"] > 1e-12) == (scan["ratio"] < 1)[:, None])
        assert np.all(scan["value"]["times"][:, -1] == TINY.steps)
        np.testing.assert_array_equal(run.arrays[kernel]["all"]["ratio"], [1.0])
    found = linear_rate_facts.facts(run.arrays)
    # Two sizes, two kernels, three seeds; all three matrices at one of the sizes.
    assert found.runs == {"value": 12, "all": 6, "sufficient": 6}
    assert found.iterates == {"value": 12 * 65, "all": 6 * 17, "sufficient": 6 * 17}
    assert found.below == 6


def test_figures_are_drawn_again(finished, tmp_path):
    """Equality: figures drawn from record and manifest have the bytes of those of the run."""
    assert redrawn(finished[0], tmp_path / "again")


def test_one_problem_by_itself(finished):
    """Independent path: constants, run and ball test of one problem, step by step."""
    size = (2, 2, 2)
    given = linear_rate_cells.problems(TINY, size)
    layer, inputs, targets = jax.tree.map(lambda leaf: leaf[1], given)
    kernel = theory.GaussianKernel()
    constants = theory.rate_constants(kernel, layer, inputs, targets)
    step = float(constants.step)
    run = theory.layer_descent(kernel, layer, inputs, targets, step=step, steps=TINY.steps)
    scan = finished[1].arrays["gaussian"]["heads"]
    kept = scan["value"]["times"][1]
    np.testing.assert_allclose(scan["value"]["risks"][1, 1], run.risks[kept], rtol=1e-9)
    np.testing.assert_allclose(scan["pl"][1, 1], constants.pl, rtol=1e-9)
    test = theory.ball_test(kernel, layer, inputs, targets)
    together = finished[1].arrays["gaussian"]["all"]["all"]
    np.testing.assert_allclose(together["margin"][0, 1], test.margin, rtol=1e-6)
    assert together["passes"][0, 1] == test.passes


def test_the_ball_test_of_every_cell(finished):
    """Theorem: W^V alone passes where B has full row rank, chosen starts pass, none was wrong."""
    out, run = finished
    found = linear_rate_facts.facts(run.arrays)
    assert (found.passed["value"], found.passed["sufficient"]) == (6, 6)
    assert set(found.excess.values()) == set(found.contradicted.values()) == {0}
    assert 0 < found.used < 1
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.count("| all, in the ball |") == 2
    assert text.count("| W^V |") == 4
    # The smallest H of a start that passes is the threshold itself, for either kernel.
    for kernel in linear_rate_facts.KERNELS:
        rank, heads, *_, gain = run.arrays["starts"][f"2; 2; gain chosen; {kernel}"]
        assert rank == heads == 2
        assert gain > 1


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

    def outside(scan):
        scan["value"]["contradicted"][1, 0] = 1

    def exceeding(scan):
        scan["value"]["excess"][1, 0] = 1

    for spoil in (violated, deficient, slow, fits, outside, exceeding):
        agrees, because = linear_rate_facts.verdict(changed(arrays, spoil))
        assert agrees is False
        assert because.startswith("7 of 8 checks agree. Not met: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": 3}, "outputs must be at most head_dim = 2, got 3"),
        ({"factors": (0.25, 1.0)}, "factors must give whole numbers, got 0.25 of heads = 2"),
        ({"factors": (0.5, 2.0)}, "factors must increase and hold 1"),
        ({"scans": ("dim",)}, "scans must hold heads, where all three are trained, got"),
        ({"scans": ("heads", "width")}, "scans must be one of samples, dim, heads, got 'width'"),
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
        ({"steps": 8}, "steps must be an integer >= 16, got 8"),
        ({"bandwidth": 0.0}, "bandwidth must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
