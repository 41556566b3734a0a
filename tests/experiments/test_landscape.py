"""The landscape after two stages, end to end at the size of the suite, and its facts."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import _cli
from experiments.attention_kernels import (
    landscape,
    landscape_facts,
    landscape_figures,
    landscape_report,
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
    assert names == {"record.npz", "manifest.json", "report.md", "surface_text.png", "paths.png"}
    assert found["surface"].shape == (2, TINY.points, TINY.points)
    assert found["two_train_loss"].shape == (2, TINY.seeds, TINY.saves)
    for name in ("largest", "trace", "rise", "stage_barrier", "kernel_barrier", "entropy", "rank"):
        assert found[name].shape == (2, TINY.seeds)
        assert np.all(np.isfinite(found[name])), name
    # Stage 2 begins where stage 1 ended, and only there do the risks differ by the kernel alone.
    np.testing.assert_array_equal(found["two_train_loss"][0, :, 0], found["one_train_loss"][:, -1])
    assert np.all(found["two_train_loss"][1, :, 0] != found["two_train_loss"][0, :, 0])
    # The middle of the surface, the end of both ways and of the curve are one point.
    ends = found["two_train_loss"][:, :, -1]
    np.testing.assert_allclose(found["surface"][:, 2, 2], ends[:, 0], rtol=1e-10)
    np.testing.assert_allclose(found["stage_way"][:, :, -1], ends, rtol=1e-10)
    np.testing.assert_allclose(found["kernel_way"][0, :, 0], ends[0], rtol=1e-10)
    np.testing.assert_allclose(found["kernel_way"][1, :, -1], ends[1], rtol=1e-10)
    np.testing.assert_allclose(found["shadow"][:, :, -1], 0, atol=1e-12)
    assert np.all((found["outside"] > 0) & (found["outside"] <= 1 + 1e-12))
    assert np.all(found["largest"] >= found["smallest"])


def test_the_report_says_what_was_measured(finished):
    """Closed form: the facts of the record, and the verdict that follows from them."""
    out, found = finished
    page = (out / "report.md").read_text(encoding="utf-8")
    facts = landscape_facts.facts(found)
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    assert f"This run **{word[landscape_facts.verdict({'text': facts})[0]]}**" in page
    for check in (*facts.flatter, *facts.barriers):
        assert check.measured in page
    assert f"{facts.converged[0]} of 4 pairs converged" in page
    assert "Not published: the lengths of the stages" in page
    assert "there is no data to give" in page
    share = f"{100 * facts.outside[0]:.4g} % and {100 * facts.outside[1]:.4g} %"
    assert f"{share} (softmax and Gaussian, the worst seed) is not in the plane" in page


def made_up(**apart):
    """A record of three seeds in which Gaussian minus softmax is known up to a little noise."""
    rng = np.random.default_rng(0)
    names = ("trace", "rise", "stage_barrier", "kernel_barrier", "risk", "outside")
    arrays = {
        name: np.stack([np.full(3, 2.0), 2.0 + apart.get(name, -1.0) + 1e-3 * rng.normal(size=3)])
        for name in names
    }
    ratio = np.exp(apart.get("largest", -1.0) + 1e-3 * rng.normal(size=3))
    arrays["largest"] = np.stack([np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]) * ratio])
    arrays["converged"] = np.ones((2, 3), bool)
    arrays["minima"] = np.array([3, 1])
    return arrays


@pytest.mark.parametrize(
    ("apart", "flatter", "barriers"),
    [
        ({}, True, True),
        ({"trace": 1.0}, False, True),
        ({"largest": 1.0}, False, True),
        ({"kernel_barrier": 1.0}, True, False),
        ({"rise": 0.0}, None, True),
        ({"stage_barrier": 0.0}, True, None),
    ],
)
def test_the_verdict_follows_the_numbers(apart, flatter, barriers):
    """Closed form: paired differences that are known up to a thousandth."""
    found = landscape_facts.facts(made_up(**apart))
    assert landscape_facts.verdicts.joint(found.flatter) is flatter
    assert landscape_facts.verdicts.joint(found.barriers) is barriers
    outcomes = (flatter, barriers)
    expected = False if False in outcomes else None if None in outcomes else True
    agrees, because = landscape_facts.verdict({"text": found, "pathfinder": found})
    assert agrees is expected
    assert "Of 10 paired differences" in because
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}
    assert word[expected] in landscape_report.summary({"text": found})


def test_what_cannot_be_trusted_stays_open():
    """Closed form: no convergence, no eigenvalue above 0, and no barrier under either kernel."""
    arrays = made_up()
    arrays["converged"][0, 1] = False
    found = landscape_facts.facts(arrays)
    assert (found.flatter[0].agrees, found.converged) == (None, (5, 6))
    assert "not converged" in found.flatter[0].measured
    arrays = made_up()
    arrays["largest"][1, 2] = -1.0
    assert landscape_facts.facts(arrays).flatter[0].agrees is None
    arrays["stage_barrier"] = np.array([[3e-5, 0.0, 9e-5], [0.0, 0.0, 1e-6]])
    check = landscape_facts.facts(arrays).barriers[0]
    assert (check.agrees, check.measured) == (None, "+0 [+0, +0]")


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
    config = dataclasses.replace(TINY, directions="trajectory")
    paths = paths_in_a_plane()
    axes = landscape_stages.directions(config, None, paths, 1)
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
    first, second = landscape_stages.directions(TINY, start, {}, 1)
    other, _ = landscape_stages.directions(TINY, start, {}, 0)
    first, second, other = (axis.blocks[0] for axis in (first, second, other))
    for axis in (first, second):
        assert not axis["bias"].any()
        for layer in range(3):
            for head in range(2):
                found = np.linalg.norm(axis["a"][layer, head])
                np.testing.assert_allclose(found, np.linalg.norm(heads["a"][1, layer, head]))
    assert not np.allclose(first["a"], second["a"])
    assert not np.allclose(first["a"], other["a"])


def test_the_published_sizes_and_both_tasks():
    """Closed form: layers, dimension, heads and neurons as the paper prints them; 41 points."""
    paper, default = landscape.PRESETS["paper"], landscape.PRESETS["default"]
    assert (paper.depth, paper.dim, paper.heads, paper.neurons) == (2, 64, 2, 128)
    assert (paper.length, paper.tokens, paper.points, default.points) == (
        4000,
        "grey_values",
        41,
        41,
    )
    assert min(paper.seeds, default.seeds) >= 3
    assert default.tasks == ("text", "pathfinder")
    problem = landscape_stages.problem(TINY, "pathfinder")
    assert (problem.training.optimizer, problem.task.x_train.shape) == ("adam", (40, 16, 16, 1))
    shape = jax.eval_shape(
        problem.models["gaussian"].apply,
        jax.eval_shape(lambda key: problem.models["gaussian"].init(key, width=(2, 8)),
                       jax.random.key(0)),
        problem.task.x_train[0],
    ).shape  # fmt: skip
    assert shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"stage_two": 5}, "stage_two must be a multiple of saves - 1 = 2, got 5"),
        ({"span": 0.0}, "span must be a finite number > 0"),
        ({"tasks": ()}, "tasks must be one or more different ones"),
        ({"tasks": ("images",)}, "task must be"),
        ({"lanczos": 0}, "lanczos must be an integer >= 1, got 0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_refusals_of_a_run(tmp_path, capsys):
    """House rule: status 2, one sentence, no directory."""
    for words, message in (
        (["--measured", "41"], "batch and measured must be at most the 40 training samples"),
        (["--tasks", "pathfinder", "--patch", "5"], "patch must divide the image"),
        (["--data", str(tmp_path)], "data"),
    ):
        out = ["--out", str(tmp_path / "out"), "--quiet"]
        assert _cli.main(["landscape", "--preset", "tiny", *words, *out]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_run_that_diverged_is_refused():
    """House rule: what diverged is named, with the remedy."""
    theta = {"a": np.array([1.0, np.nan])}
    with pytest.raises(ValueError, match="stage 2 of text under gaussian must stay finite"):
        landscape_stages.finite(theta, "stage 2 of text under gaussian")
