"""Training against depth, end to end at the size of the suite."""

import dataclasses

import numpy as np
import pytest

from experiments import _cli, _datasets
from experiments.global_convergence import vit_depth, vit_depth_facts, vit_model
from experiments.global_convergence.vit_model import Cell
from meanfield import past, store

TINY = vit_depth.PRESETS["tiny"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny preset through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert _cli.main(["vit_depth", "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out, store.load_run(out)


def test_a_run_leaves_its_record_and_figures(finished, tmp_path):
    """Closed form: the shapes that the configuration asks for; figures from the record alone."""
    out, run = finished
    shape = (len(TINY.depths), TINY.seeds, TINY.saves)
    for name in ("loss", "accuracy", "test_loss", "test_accuracy"):
        assert run.arrays["mean_field"][name].shape == shape
        assert np.all(np.isfinite(run.arrays["mean_field"][name]))
    vit_depth.draw(run.arrays, past.configuration(run.manifest, vit_depth.Config), tmp_path)
    figures = {path.name for path in tmp_path.iterdir()}
    assert figures == {"training.png", "ends.png", "gaps.png"}
    assert all((out / name).read_bytes() == (tmp_path / name).read_bytes() for name in figures)
    page = (out / "report.md").read_text(encoding="utf-8")
    found = vit_depth_facts.facts(run.arrays, TINY.scalings)
    _, because = vit_depth_facts.verdict(found, coupling="path", training="sgd")
    assert because in page
    assert "one path over depth each" in page


def test_paths_are_the_same_at_every_depth():
    """Invariance: the particles of a shallow network are those of each layer of a deep one."""
    images = _datasets.digits()
    shallow, deep = (
        vit_model.start(TINY, vit_model.model(TINY, images, "mean_field", depth), cell, 1)
        for depth in (1, 3)
        for cell in [Cell("mean_field", depth, 2, "path")]
    )
    for one, other in zip(shallow.blocks, deep.blocks, strict=True):
        for leaf, leaves in zip(one, other, strict=True):
            np.testing.assert_array_equal(np.repeat(leaf, 3, axis=0), leaves)


def record(gaps, *, completed=True):
    """A record in which the shallower networks' losses differ by these gaps from the deepest's."""
    depths = np.array([2, 4, 8, 16])
    loss = np.zeros((4, 3, 2))
    loss[:-1, :, 1] = gaps(vit_depth_facts.nested_depth(depths)[:, None], np.arange(3.0))
    curves = {"loss": 2 + loss, "accuracy": loss, "test_accuracy": loss}
    curves |= {"completed": np.full((4, 3), completed)}
    return {"depths": depths, "times": np.arange(2.0), "mean_field": curves}


@pytest.mark.parametrize(
    ("gaps", "options", "expected"),
    [
        (lambda depth, seed: (1 + seed) / depth, {}, True),
        (lambda depth, seed: (1 + seed) / depth**2, {}, True),
        (lambda depth, seed: (1 + seed) / depth**0.5, {}, False),
        (lambda depth, seed: (1 + seed) / depth**0.5, {"coupling": "independent"}, True),
        (lambda depth, seed: depth ** (seed - 2.0), {}, None),
        (lambda depth, seed: (1 + seed) / depth, {"training": "adam"}, None),
        (lambda depth, seed: 0 * seed / depth, {}, None),
    ],
)
def test_the_verdict_follows_the_rate(gaps, options, expected):
    """Closed form: gaps that are powers of the nested depth, and what the theorem asks of them."""
    options = {"coupling": "path", "training": "flow"} | options
    found = vit_depth_facts.facts(record(gaps), ("mean_field",))
    assert vit_depth_facts.verdict(found, **options)[0] is expected
    unfinished = vit_depth_facts.facts(record(gaps, completed=False), ("mean_field",))
    assert vit_depth_facts.verdict(unfinished, **options)[0] is None
    assert vit_depth_facts.verdict({}, **options)[0] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 4, 8)}, "depths must be four or more increasing numbers"),
        ({"depths": (8, 4, 2, 1)}, "depths must be four or more increasing numbers"),
        ({"depths": (0, 1, 2, 3)}, "depths must be an integer >= 1, got 0"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no scan has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
