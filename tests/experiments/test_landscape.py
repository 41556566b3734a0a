"""The landscape after two stages, end to end at the size of the suite, and its facts."""

import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.attention_kernels import (
    landscape,
    landscape_curvature,
    landscape_facts,
    landscape_figures,
    landscape_stages,
    landscape_terrain,
)
from experiments.attention_kernels.training import KERNELS
from meanfield import nn, store
from meanfield.tree import dot

TINY = landscape.PRESETS["tiny"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One tiny run through the command line."""
    out = tmp_path_factory.mktemp("runs") / "landscape"
    words = ["landscape", "--preset", "tiny", "--out", str(out), "--quiet"]
    assert _cli.main(words) == 0
    return out, store.load_run(out).arrays["text"]


def test_a_run_leaves_its_record_and_figures(finished):
    """Closed form: the shapes that the configuration asks for, and what must agree in them."""
    out, found = finished
    names = {path.name for path in out.iterdir()}
    figures = {"surface_text_random.png", "surface_text_trajectory.png", "paths.png"}
    figures |= {"spectra.png", "heads.png"}
    assert names == {"record.npz", "manifest.json", "report.md"} | figures
    assert found["surface"].shape == (2, 2, TINY.points, TINY.points)
    assert found["two_train_loss"].shape == (2, TINY.seeds, TINY.saves)
    for name in ("largest", "trace", "rise", "stage_barrier", "kernel_barrier", "clustering"):
        assert found[name].shape == (2, TINY.seeds)
        assert np.all(np.isfinite(found[name])), name
    for name in ("entropy", "rank", "heads"):
        assert found[name].shape == (2, TINY.seeds, TINY.depth, TINY.heads)
        assert np.all(np.isfinite(found[name])), name
    # Stage 2 begins where stage 1 ended, and only there do the risks differ by the kernel alone.
    np.testing.assert_array_equal(found["two_train_loss"][0, :, 0], found["one_train_loss"][:, -1])
    assert np.all(found["two_train_loss"][1, :, 0] != found["two_train_loss"][0, :, 0])
    # The middle of the surface, the end of both ways and of the curve are one point.
    ends = found["two_train_loss"][:, :, -1]
    for plane in (0, 1):
        np.testing.assert_allclose(found["surface"][:, plane, 2, 2], ends[:, 0], rtol=1e-10)
    np.testing.assert_allclose(found["stage_way"][:, :, -1], ends, rtol=1e-10)
    np.testing.assert_allclose(found["kernel_way"][0, :, 0], ends[0], rtol=1e-10)
    np.testing.assert_allclose(found["kernel_way"][1, :, -1], ends[1], rtol=1e-10)
    np.testing.assert_allclose(found["shadow"][:, :, :, -1], 0, atol=1e-12)
    assert np.all((found["outside"] > 0) & (found["outside"] <= 1 + 1e-12))
    assert np.all(found["largest"] >= found["smallest"])
    # Of two-dimensional ways a plane of their own directions holds more than a random one does.
    assert np.all(found["outside"][:, :, 1] < found["outside"][:, :, 0])


def test_figures_are_drawn_again(finished, tmp_path):
    """Equality: figures drawn from record and manifest have the bytes of those of the run."""
    assert redrawn(finished[0], tmp_path / "again")


def test_the_spectrum_of_the_run(finished):
    """Theorem: a probability at each probe; the trace is n times its mean."""
    _, found = finished
    assert found["nodes"].shape == (2, TINY.seeds, TINY.probes, TINY.lanczos)
    np.testing.assert_allclose(found["weights"].sum(axis=-1), 1, rtol=1e-10)
    means = np.sum(found["nodes"] * found["weights"], axis=-1).mean(axis=-1)
    np.testing.assert_allclose(found["trace"], found["parameters"] * means, rtol=1e-10)


def test_the_report_says_what_was_measured(finished):
    """Closed form: the facts of the record, and the verdict that follows from them."""
    out, found = finished
    page = (out / "report.md").read_text(encoding="utf-8")
    facts = landscape_facts.facts(found, tasks=1)
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    assert f"This run **{word[landscape_facts.verdict({'text': facts})[0]]}**" in page
    for check in (*facts.flatter, *facts.barriers):
        assert check.measured in page
    assert f"{facts.converged[0]} of 4 pairs converged" in page
    assert "Not published: the lengths of the stages" in page
    assert "The 5 intervals hold together with 95 % (Bonferroni: each alone with 99 %)" in page
    for plane in (0, 1):
        share = " and ".join(f"{100 * part[plane]:.3g} %" for part in facts.outside)
        assert f"{share} (softmax and Gaussian, the worst seed) is not in the plane" in page
    assert "| layer 1, head 2 |" in page


def test_minima_of_a_surface():
    """Closed form: cos x cos y has minima where one is 1 and the other -1; edges never count."""
    grid = np.linspace(-1.5 * np.pi, 1.5 * np.pi, 25)
    waves = np.outer(np.cos(grid), np.cos(grid))
    assert landscape_terrain.minima(waves) == 4
    assert landscape_terrain.minima(np.add.outer(grid, grid)) == 0
    assert landscape_terrain.minima(np.zeros((5, 5))) == 0


def test_the_longest_samples():
    """Closed form: fewest zeros first, in their order; images as they come."""
    ids = np.array([[1, 0, 0], [1, 2, 0], [3, 4, 5], [6, 7, 0]])
    assert landscape_terrain.longest(ids, 3)[:, 0].tolist() == [3, 1, 6]
    assert landscape_terrain.longest(np.eye(3), 2).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_heights_are_logarithms_where_the_surface_is_steep():
    """Closed form: a ratio of 100, and one of 2."""
    steep, label = landscape_figures.scaled(np.array([1.0, 100.0, np.inf]))
    assert (steep[:2].tolist(), label[:5]) == ([0.0, 2.0], "log₁₀")
    assert landscape_figures.scaled(np.array([1.0, 2.0]))[1] == "training loss"


def paths_in_a_plane(times=4, seeds=2):
    """Ways of both kernels in the plane of the first two coordinates, ending far apart."""
    rng = np.random.default_rng(1)
    paths = {}
    for place, kernel in enumerate(KERNELS):
        ways = np.zeros((times, seeds, 3, 2, 2))
        ways[..., 0, 0, 0] = rng.normal(size=(times, seeds))
        ways[..., 1, 0, 0] = 3 * rng.normal(size=(times, seeds))
        paths[kernel] = {"a": ways + 10.0 * place}
    return paths


def test_principal_directions_hold_both_ways():
    """Closed form: ways in a plane span it; the longest one reaches 1 / 1.25 of a direction."""
    paths = paths_in_a_plane()
    axes = landscape_stages.directions("trajectory", 0, None, paths, 1)
    reached = np.zeros(2)
    for kernel in KERNELS:
        for way in paths[kernel]["a"][:, 1] - paths[kernel]["a"][-1, 1]:
            found = [float(dot({"a": way}, axis)) / float(dot(axis, axis)) for axis in axes]
            rest = way - sum(c * axis["a"] for c, axis in zip(found, axes, strict=True))
            np.testing.assert_allclose(rest, 0, atol=1e-12)
            reached = np.maximum(reached, np.abs(found))
    np.testing.assert_allclose(reached, 1 / landscape_stages.MARGIN, rtol=1e-10)


def test_random_directions_have_the_norms_of_filters():
    """Numpy loop: every matrix of every head, no biases; the same for both kernels, by the seed."""
    rng = np.random.default_rng(2)
    heads = {"a": rng.normal(size=(2, 3, 2, 4, 5)), "bias": rng.normal(size=(2, 3, 2))}
    start = nn.Theta((), (heads,), ())
    first, second = landscape_stages.directions("random", 0, start, {}, 1)
    other, _ = landscape_stages.directions("random", 0, start, {}, 0)
    first, second, other = (axis.blocks[0] for axis in (first, second, other))
    for axis in (first, second):
        assert not axis["bias"].any()
        for layer in range(3):
            for head in range(2):
                found = np.linalg.norm(axis["a"][layer, head])
                np.testing.assert_allclose(found, np.linalg.norm(heads["a"][1, layer, head]))
    assert not np.allclose(first["a"], second["a"])
    assert not np.allclose(first["a"], other["a"])


def test_marks_of_layers_and_heads():
    """Closed form: heads of a layer do not overlap; with its neurons they are the layer."""
    theta = nn.Theta(np.ones(3), ({"q": np.ones((2, 3, 4))}, {"w": np.ones((2, 5))}), np.ones(2))
    layer = landscape_curvature.marks(theta, 1)
    heads = [landscape_curvature.marks(theta, 1, head) for head in range(3)]
    attention = np.sum([head.blocks[0]["q"] for head in heads], axis=0)
    np.testing.assert_array_equal(attention, layer.blocks[0]["q"])
    assert attention.sum() == 12
    assert sum(head.blocks[1]["w"].sum() for head in heads) == 0
    assert layer.blocks[1]["w"].tolist() == [[0] * 5, [1] * 5]
    assert not layer.embedding.any()
    assert not layer.readout.any()
