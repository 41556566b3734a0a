"""The main job end to end, at the size of the suite."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import _cli
from experiments.global_convergence import head_law, vit_heads, vit_heads_report
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
    for name in ("loss", "accuracy", "test_accuracy", "distance"):
        assert run.arrays[name].shape == shape
        assert np.all(np.isfinite(run.arrays[name]))
    assert np.all(np.diff(run.arrays["loss"], axis=-1) < 0)
    assert np.all((run.arrays["accuracy"] >= 0) & (run.arrays["accuracy"] <= 1))
    assert np.all(run.arrays["gradients"] > TINY.saves)
    assert run.manifest["config"]["kappa"] == 2.0


def test_the_report_says_what_was_measured(finished):
    """Closed form: the fits of the record, and the verdict that follows from them."""
    out, run = finished
    text = (out / "report.md").read_text(encoding="utf-8")
    width = head_law.effective_width(run.arrays["heads"])
    fit = rates.log_log_slope(width, run.arrays["distance"][:, :, -1].T)
    assert f"{fit.slope:.2f} (95 % interval [{fit.low:.2f}, {fit.high:.2f}])" in text
    loss = rates.log_log_slope(run.arrays["heads"].astype(float), run.arrays["loss"][:, :, -1].T)
    assert f"slope of log loss in log heads {loss.slope:.2f}" in text
    assert "Gao et al. 2024" in text
    assert "scikit-learn digits" in text


@pytest.mark.parametrize(
    ("power", "better", "verdict"), [(-0.5, True, True), (0.5, True, False), (-0.5, False, None)]
)
def test_the_verdict_follows_the_interval(power, better, verdict):
    """Closed form: losses that are exact powers of the number of heads, with factors."""
    heads = np.array([4, 8, 16])
    factor = np.array([1.0, 1.1, 1.3])
    loss = heads[:, None, None] ** power * factor[None, :, None]
    gain = np.array([0.5, 0.6, 0.7]) if better else np.array([0.7, 0.6, 0.5])
    arrays = {
        "heads": heads,
        "times": np.array([1.0]),
        "loss": loss,
        "accuracy": np.broadcast_to(gain[:, None, None], loss.shape),
    }
    fit = rates.log_log_slope(heads.astype(float), loss[:, :, 0].T)
    facts = vit_heads_report.Facts(last=0, distance=fit, draws=fit, loss=fit)
    assert vit_heads_report.verdict(arrays, facts)[0] is verdict


def test_a_run_that_diverged_leaves_what_it_had():
    """Closed form: comparison at the last time that all runs reached."""
    loss = np.ones((3, 2, 4))
    loss[1, 0, 2:] = np.nan
    assert vit_heads_report.last_common({"loss": loss}) == 1


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
        ({"heads": (4, 8)}, "heads must be at least three increasing numbers"),
        ({"heads": (8, 4, 2)}, "heads must be at least three increasing numbers"),
        ({"seeds": 1}, "seeds must be >= 2, got 1"),
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
        ({"depth": -1}, "depth must be an integer >= 1, got -1"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"bandwidth": -1.0}, "bandwidth must be a finite number > 0, got -1.0"),
        ({"horizon": 0.0}, "horizon must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no network has these sizes."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
