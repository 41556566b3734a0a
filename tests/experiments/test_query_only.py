"""Training W^Q alone under both kernels, at the size of the suite."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.attention_kernels import query_only, query_only_facts
from meanfield import nn, store, theory

TINY = query_only.PRESETS["tiny"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny preset through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert _cli.main(["query_only", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out, store.load_run(out)


def test_a_run_leaves_its_record_and_figures(finished):
    """Closed form: files and shapes; targets out of reach are never reached."""
    out, run = finished
    names = {path.name for path in out.iterdir()}
    figures = {f"map_{family}.png" for family in TINY.families}
    figures |= {"distances_middle.png", "distances_origin.png"}
    assert names == {"record.npz", "manifest.json", "report.md"} | figures
    for family in TINY.families:
        for kernel in query_only_facts.KERNELS:
            found = run.arrays[family]["last"][kernel]
            assert found.shape == (1, 1, 2, 20)
            assert np.all(found >= 0)
    assert query_only_facts.facts(run.arrays).impossible == 0
    # What a kernel has put out is in its reach, whatever else is not.
    outside = run.arrays["teacher"]["out of reach"]
    assert not outside["simplex"][..., 0, :].any()
    assert not outside["box"].any()


def test_figures_are_drawn_again(finished, tmp_path):
    """Equality: figures drawn from record and manifest have the bytes of those of the run."""
    assert redrawn(finished[0], tmp_path / "again")


@pytest.mark.parametrize(("family", "level"), [("middle", 1), ("origin", 0), ("teacher", 1)])
def test_one_problem_by_itself(finished, family, level):
    """Independent path: layer, targets, descent and hull test of one problem, step by step."""
    draws = query_only.draws(TINY, 4)
    layer, inputs, ways, teacher = jax.tree.map(lambda leaf: leaf[3], draws)
    values = np.asarray(inputs[0] @ layer.value[0] @ layer.output[0])
    spread = np.sqrt(np.mean(np.sum((values - values.mean(axis=0)) ** 2, axis=1)))
    size = np.sqrt(np.mean(np.sum(values**2, axis=1)))
    queries, keys = (np.asarray(inputs[0] @ w[0]) for w in (teacher, layer.key))
    weights = np.exp(-np.sum((queries[:, None] - keys[None]) ** 2, axis=2) / 2 / np.sqrt(2))
    targets = {
        "middle": values.mean(axis=0) + 2.0 * spread * np.asarray(ways),
        "origin": 0.5 * size * np.asarray(ways),
        "teacher": weights @ values,
    }[family]
    unit = 1 / float(np.sum(inputs**2) * np.mean(np.sum(values**2, axis=1)))
    run = theory.layer_descent(
        nn.softmax(), layer, inputs, jax.numpy.asarray(targets[None]), step=unit, steps=50,
        trained=["query"], constants=False,
    )  # fmt: skip
    record, size = finished[1].arrays[family], np.sum(targets**2) / 2
    for name, at in (("first", 0), ("last", -1)):
        found = record[name]["softmax"][0, 0, level, 3]
        np.testing.assert_allclose(found, run.risks[at] / size, rtol=1e-9)
    reach = theory.reach_test(layer, inputs, jax.numpy.asarray(targets[None]))
    ruled_out = record["out of reach"]["simplex"][0, 0, level, 3]
    assert ruled_out == (reach.least_risk > TINY.tolerance * size)


def test_the_report_says_what_was_counted(finished):
    """Closed form: the verdict and every cell follow from the record."""
    out, run = finished
    text = (out / "report.md").read_text(encoding="utf-8")
    found = query_only_facts.facts(run.arrays)
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    agrees, because = query_only_facts.verdict(found)
    assert f"This run **{word[agrees]}**: {because}" in text
    for cell in found.cells:
        assert query_only_facts.interval(cell.lead) in text


def made_up(softmax, gaussian):
    """A record of two cells in which the given shares of 400 problems succeed."""
    ends = {
        kernel: np.where(np.arange(400)[None] < 400 * np.array(shares)[:, None], 0.0, 1.0)
        for kernel, shares in (("softmax", softmax), ("gaussian", gaussian))
    }
    family = {
        "levels": np.array([0.5, 1.0]),
        "first": {kernel: np.ones((1, 1, 2, 400)) for kernel in ends},
        "last": {kernel: found.reshape(1, 1, 2, 400) for kernel, found in ends.items()},
        "out of reach": {rows: np.zeros((1, 1, 2, 400), bool) for rows in ("simplex", "box")},
    }
    axes = {"dims": np.array([4]), "scales": np.array([1.0])}
    return {"middle": family, **axes, "tolerance": 1e-3}


@pytest.mark.parametrize(
    ("softmax", "gaussian", "expected", "counts"),
    [
        ((0.2, 0.3), (0.5, 0.3), True, (1, 0, 1)),
        ((0.2, 0.5), (0.5, 0.3), False, (1, 1, 0)),
        ((0.6, 0.6), (0.2, 0.6), False, (0, 1, 1)),
        ((0.3, 0.3), (0.3, 0.3), None, (0, 0, 2)),
    ],
)
def test_the_verdict_follows_the_numbers(softmax, gaussian, expected, counts):
    """Closed form: known shares of successes."""
    found = query_only_facts.facts(made_up(softmax, gaussian))
    agrees, because = query_only_facts.verdict(found)
    assert agrees is expected
    wins, losses, several = counts
    said = f"the Gaussian kernel wins {wins} of 2 cells, softmax {losses}, and {several} are open"
    assert said in because
    lead = np.mean(gaussian) - np.mean(softmax)
    assert found.leads["middle"].value == pytest.approx(lead, abs=1e-9)
    for cell, share in zip(found.cells, gaussian, strict=True):
        assert cell.success["gaussian"].value == pytest.approx(share)


def test_problems_begun_below_the_tolerance_are_left_out():
    """Closed form: of 400 successes of softmax 100 were none, and one cell has hardly a problem."""
    record = made_up((1.0, 0.5), (0.25, 0.5))
    record["middle"]["first"]["softmax"][0, 0, 0, :100] = 1e-4
    record["middle"]["first"]["gaussian"][0, 0, 1, 1:] = 1e-4
    first, second = query_only_facts.facts(record).cells
    assert (first.problems, second.problems) == (300, 1)
    assert first.success["softmax"].value == 1.0
    assert first.success["gaussian"].value == 0.0
    assert np.isnan(second.lead.value)
    assert second.winner is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": (4, 2)}, "dims must be one or more increasing numbers"),
        (
            {"families": ("middel",)},
            "families must be one of middle, origin, teacher, got 'middel'",
        ),
        ({"families": ("origin", "origin")}, "families must be one or more, each once"),
        ({"distances": ()}, "distances must be one or more increasing numbers"),
        ({"ladder": (0.0, 1.0)}, "ladder must be a finite number > 0, got 0.0"),
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"tolerance": -1.0}, "tolerance must be a finite number > 0, got -1.0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
