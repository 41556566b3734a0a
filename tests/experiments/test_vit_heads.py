"""The main job end to end, at the size of the suite."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.global_convergence import head_law, vit_facts, vit_heads, vit_heads_facts
from meanfield import measure, rates, store

TINY = vit_heads.PRESETS["tiny"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the tiny preset through the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["vit_heads", "--preset", "tiny", "--out", str(out), "--quiet", "--kappa", "2.0"]
    assert _cli.main(words) == 0
    return out, store.load_run(out)


def test_a_run_leaves_its_record_and_figures(finished):
    """Closed form: the shapes that the configuration asks for, and losses that a flow lowers."""
    out, run = finished
    names = {path.name for path in out.iterdir()}
    assert names == {
        "record.npz", "manifest.json", "report.md", "training.png", "distance.png", "clouds.png",
    }  # fmt: skip
    shape = (len(TINY.heads), TINY.seeds, TINY.saves)
    found = run.arrays["mean_field"]
    for name in ("loss", "accuracy", "test_accuracy"):
        assert found[name].shape == shape
        assert np.all(np.isfinite(found[name]))
    assert np.all(np.diff(found["loss"], axis=-1) < 0)
    kept = len(run.arrays["head_times"])
    assert found["gap"].shape == (len(TINY.heads) - 1, TINY.seeds, kept)
    assert np.all(found["gap"][:, :, 1:] > 0)
    assert np.all((found["accuracy"] >= 0) & (found["accuracy"] <= 1))
    assert np.all(found["gradients"] > TINY.saves)
    assert run.manifest["config"]["kappa"] == 2.0


def test_the_report_says_what_was_measured(finished):
    """Closed form: the fits of the record, and the verdict that follows from them."""
    out, run = finished
    text = (out / "report.md").read_text(encoding="utf-8")
    width = head_law.effective_width(run.arrays["heads"])
    found = run.arrays["mean_field"]
    fit = rates.log_log_slope(width, found["distance"][:, :, -1].T)
    assert f"{fit.slope:.2f} (95 % interval [{fit.low:.2f}, {fit.high:.2f}])" in text
    gap = rates.log_log_slope(head_law.nested_width(run.arrays["heads"]), found["gap"][:, :, -1].T)
    assert f"{gap.slope:.2f} (95 % interval [{gap.low:.2f}, {gap.high:.2f}])" in text
    assert "Gao et al. 2024" in text
    assert "scikit-learn digits" in text


def test_figures_come_from_the_record_alone(finished, tmp_path):
    """Invariance: record and manifest, read back from the disk, give the same bytes."""
    assert redrawn(finished[0], tmp_path / "again")


@pytest.fixture(scope="module")
def on_minibatches(tmp_path_factory):
    """Both parametrisations by Adam, two numbers of heads, through the command line."""
    out = tmp_path_factory.mktemp("runs") / "adam"
    words = ["vit_heads", "--preset", "tiny", "--out", str(out), "--quiet", "--training", "adam"]
    words += ["--scalings", "mean_field", "standard", "--heads", "1", "2", "--depth", "1"]
    words += ["--batch", "10", "--epochs", "2", "--saves", "3", "--learning-rates", "0.1", "0.01"]
    assert _cli.main(words) == 0
    return out, store.load_run(out)


def test_minibatches_side_by_side(on_minibatches, tmp_path):
    """Closed form: shapes, one verdict for each law, and steps per second in the report alone."""
    out, run = on_minibatches
    assert run.arrays["times"].tolist() == [0.0, 1.0, 2.0]
    for law in ("mean_field", "standard"):
        found = run.arrays[law]
        assert set(found) == {"loss", "accuracy", "test_loss", "test_accuracy", "completed"}
        assert all(found[name].shape == (2, 2, 3) for name in found if name != "completed")
    page = (out / "report.md").read_text(encoding="utf-8")
    for said in ("Mean-field parametrisation: more heads", "Standard parametrisation: more heads"):
        assert said in page
    assert "| steps/s |" in page
    assert "learning rate 0.1 (mean-field), 0.01 (standard)" in page
    assert {path.name for path in out.iterdir() if path.suffix == ".png"} == {
        "training.png",
        "ends.png",
    }
    assert redrawn(out, tmp_path / "again")


def made_up(*, factor, gain, steps=5):
    """Curves in which loss and accuracy of the widest network are the narrowest's, changed."""
    own = np.array([1.0, 1.1, 1.3])[:, None] * np.ones(steps)
    accuracy = 0.5 + np.stack([0 * own, 0 * own, gain * own])
    return {
        "loss": np.stack([own, own * factor**0.5, own * factor]),
        "accuracy": accuracy,
        "test_accuracy": accuracy,
        "completed": np.ones((3, 3), bool),
    }


@pytest.mark.parametrize(
    ("factor", "gain", "expected"),
    [(0.5, 0.1, True), (2.0, 0.1, False), (0.5, -0.1, False), (1.0, 0.1, None), (0.5, 0.0, None)],
)
@pytest.mark.parametrize("at_end", [True, False])
def test_the_verdict_follows_the_intervals(factor, gain, expected, at_end):
    """Closed form: differences that are the same for every seed, up to a known factor."""
    found = made_up(factor=factor, gain=gain)
    curves = vit_facts.curves(np.arange(5.0), found)
    np.testing.assert_allclose(curves.loss.mean, np.log(factor), atol=1e-12)
    np.testing.assert_allclose(curves.end_loss, curves.loss, atol=1e-12)
    facts = vit_heads_facts.Facts(curves, None, None)
    assert vit_heads_facts.verdict(facts, at_end=at_end)[0] is expected
    found["completed"][1, 1] = False
    open_end = vit_heads_facts.Facts(vit_facts.curves(np.arange(5.0), found), None, None)
    assert vit_heads_facts.verdict(open_end, at_end=at_end)[0] is None


def test_the_end_and_the_average_differ():
    """Closed form: a widest network that overtakes in the last step, on times that are uneven."""
    found = made_up(factor=1.0, gain=0.0, steps=3)
    found["loss"][-1, :, 1] *= np.e**2
    found["loss"][-1, :, 2] /= np.e
    curves = vit_facts.curves(np.array([0.0, 1.0, 4.0]), found)
    np.testing.assert_allclose(curves.end_loss.mean, -1.0, rtol=1e-12)
    # Trapezoids of 0, 2, -1 over 1 and 3.
    np.testing.assert_allclose(curves.loss.mean, (1.0 + 1.5) / 4, rtol=1e-12)


def test_a_finer_flow_is_compared_at_the_last_common_time():
    """Closed form: a fifth less than the finer loss, at the time where one run ended."""
    found = made_up(factor=1.0, gain=0.0) | {"finer_loss": 1.25 * np.ones(5)}
    found["loss"][1, 1, 3:] = np.nan
    arrays = {"heads": np.array([4, 8, 16]), "times": np.arange(5.0), "mean_field": found}
    facts = vit_heads_facts.facts(arrays, ("mean_field",))["mean_field"]
    assert facts.curves.last == 2
    np.testing.assert_allclose(facts.solver or 0.0, 0.2, rtol=1e-12)


def test_a_run_that_diverged_leaves_what_it_had():
    """Closed form: comparison at the last time that all runs reached, whatever comes later."""
    loss = np.ones((3, 2, 4))
    loss[1, 0, 2] = np.nan
    assert vit_facts.last_common(loss) == 1
    assert vit_facts.last_common(np.ones((3, 2, 4))) == 3


def test_gaps_between_paths():
    """Numpy loop: distance of the first heads to the widest network's, over the way these came."""
    rng = np.random.default_rng(0)
    clouds = {m: [rng.normal(size=(3, 2, m, 4)) for _ in range(2)] for m in (2, 5)}
    found = head_law.path_gaps(clouds, 2, times=3)
    for seed in range(2):
        narrow, wide = clouds[2][seed], clouds[5][seed]
        assert np.isnan(found[seed, 0])
        for time in (1, 2):
            apart = [
                np.sum((narrow[time, layer, j] - wide[time, layer, j]) ** 2)
                for layer in range(2)
                for j in range(2)
            ]
            way = [
                np.sum((wide[time, layer, j] - wide[0, layer, j]) ** 2)
                for layer in range(2)
                for j in range(5)
            ]
            expected = np.sqrt(np.mean(apart) / np.mean(way))
            np.testing.assert_allclose(found[seed, time], expected, rtol=1e-12)


def test_strengths_do_not_depend_on_the_basis_of_keys():
    """Invariance: W_Q A and W_K A^{-T} attend alike; norms of one-entry heads in closed form."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(1, 1, 3, 4, 2)) for _ in range(3))
    output, change = rng.normal(size=(1, 1, 3, 2, 4)), rng.normal(size=(2, 2))
    plain = head_law.strengths((query, key, value, output), layer=0)
    moved = (query @ change, key @ np.linalg.inv(change).T, value, output)
    np.testing.assert_allclose(plain, head_law.strengths(moved, layer=0), rtol=1e-9)
    expected = np.linalg.norm(value[0, 0, 1] @ output[0, 0, 1])
    np.testing.assert_allclose(plain[0, 1, 1], expected, rtol=1e-12)


def test_distance_of_head_laws():
    """Numpy loop: sliced distance to the other seeds' widest networks, layer by layer."""
    rng = np.random.default_rng(0)
    clouds = {m: [rng.normal(size=(2, 3, m, 4)) for _ in range(3)] for m in (2, 5)}
    found = head_law.distances(clouds, 2, times=2, projections=8)
    key = jax.random.key(head_law.DIRECTIONS)
    for seed in range(3):
        for time in range(2):
            expected = []
            for other in set(range(3)) - {seed}:
                layers = [
                    measure.sliced_wasserstein(key, x, y, projections=8)
                    for x, y in zip(clouds[2][seed][time], clouds[5][other][time], strict=True)
                ]
                expected.append(np.sqrt(np.mean(np.square(layers))))
            np.testing.assert_allclose(found[seed, time], np.mean(expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": (4, 0, 8)}, "heads must be an integer >= 1, got 0"),
        ({"heads": (4, 8, 16)}, "heads must be four or more increasing numbers"),
        ({"heads": (8, 4, 2, 1)}, "heads must be four or more increasing numbers"),
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"seeds": 0}, "seeds must be an integer >= 2, got 0"),
        ({"depth": -1}, "depth must be an integer >= 1, got -1"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"bandwidth": -1.0}, "bandwidth must be a finite number > 0, got -1.0"),
        ({"horizon": 0.0}, "horizon must be a finite number > 0, got 0.0"),
        ({"training": "adam", "batch": 4, "heads": (4,)}, "heads must be two or more increasing"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no network has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
