"""What the curves of two kernels say: intervals, verdicts and sentences, on made-up answers."""

import numpy as np
import pytest
from scipy import stats

from experiments.attention_kernels import race_facts, race_report, training

BASELINE = ("counts of bytes alone", 0.6)


def made_up(*, end, rise, seeds=4, saves=9, samples=4000):
    """Answers of two kernels whose difference is the same for every seed, up to a little noise."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, saves)
    softmax = 0.6 + 0.1 * grid
    both = np.stack([softmax, softmax + rise * np.sin(np.pi * grid) + end * (grid > 0.7)])
    # A sample is right wherever it is easier than the kernel at that time is good.
    easy = rng.permuted(np.linspace(0, 1, samples))[:, None]
    right = both[:, None, None] + 0.001 * rng.normal(size=(2, seeds, 1, 1)) > easy
    accuracy = right.mean(axis=2)
    loss = {"train_loss": 1 - accuracy, "valid_loss": 1 - accuracy, "test_loss": 1 - accuracy}
    arrays = {"steps": np.arange(saves), "accuracy": accuracy, **loss}
    return arrays | race_facts.averages(arrays, right), right


@pytest.mark.parametrize(
    ("end", "rise", "expected"),
    [(0.1, 0.1, True), (-0.1, 0.0, False), (0.0, -0.1, False), (0.1, -0.2, False), (0, 0, None)],
)
def test_the_verdict_follows_the_intervals(end, rise, expected):
    """Closed form: differences that are known up to a tenth of a point."""
    arrays, _ = made_up(end=end, rise=rise)
    found = race_facts.facts(arrays, baseline=0.5)
    assert race_facts.verdict(found)[0] is expected
    direct = (arrays["accuracy"][1] - arrays["accuracy"][0])[:, -3:].mean()
    np.testing.assert_allclose(found.higher.mean, direct, atol=1e-6)
    steps = np.trapezoid(arrays["accuracy"], arrays["steps"], axis=-1).mean(axis=1) / 8
    np.testing.assert_allclose(found.faster.mean, steps[1] - steps[0], atol=1e-6)
    chance = arrays | {name: 0 * arrays[name] + 0.5 for name in ("late", "whole")}
    assert race_facts.verdict(race_facts.facts(chance, baseline=0.5))[0] is None


def test_few_test_samples_widen_the_intervals():
    """Theorem: half lengths of four intervals that join seeds and samples, as scipy gives them."""
    rng = np.random.default_rng(3)
    arrays, _ = made_up(end=0.0, rise=0.0, seeds=3)
    late = rng.integers(0, 2, size=(2, 3, 50)).astype(np.float32)
    found = race_facts.facts(arrays | {"late": late}, baseline=0.7)
    level = 1 - 0.05 / 4 / 2
    apart = (late[1] - late[0]).astype(float)
    for value, middle, own in (
        (found.higher, apart, 0.0),
        (found.beyond[1], late[1].astype(float) - 0.7, 0.7 * 0.3 / 50),
    ):
        half = (
            stats.t.ppf(level, 2) ** 2 * middle.mean(1).var(ddof=1) / 3
            + stats.t.ppf(level, 49) ** 2 * middle.mean(0).var(ddof=1) / 50
            + stats.norm.ppf(level) ** 2 * own
        ) ** 0.5
        expected = middle.mean() + half * np.array([0, -1, 1])
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_accuracy_where_validation_is_best():
    """Closed form: a validation loss that is least at a time of each seed's own."""
    arrays, _ = made_up(end=0.1, rise=0.1)
    stops = np.array([[2, 3, 4, 5], [8, 7, 6, 0]])
    arrays["valid_loss"] = 1.0 + (np.arange(9) != stops[..., None])
    found = race_facts.facts(arrays, baseline=0.5)
    assert found.stops.tolist() == stops.tolist()
    assert found.stopped[1, 1] == arrays["accuracy"][1, 1, 7]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (0.1, "Only Gaussian surely beats counts of bytes alone (75.0 %)"),
        (-0.1, "Neither kernel surely beats counts of bytes alone (75.0 %)"),
    ],
)
def test_the_baseline_is_held_against_both(end, said):
    """Closed form: softmax at 69 %, Gaussian ten points above or below."""
    arrays, _ = made_up(end=end, rise=0.0)
    found = race_facts.facts(arrays, baseline=0.75)
    sentence = race_facts.against(found, ("counts of bytes alone", 0.75), race_report.BOTH)
    assert sentence.startswith(said)
    assert race_facts.points(found.beyond[0]) in sentence
    assert sentence.endswith("below it: softmax." if end > 0 else "below it: softmax and Gaussian.")


def test_a_run_that_diverged_leaves_what_it_had():
    """Closed form: comparison at the last time that all runs reached, and no verdict."""
    arrays, right = made_up(end=0.1, rise=0.1)
    arrays["accuracy"][1, 2, 6:] = np.nan
    arrays |= race_facts.averages(arrays, right)
    found = race_facts.facts(arrays, baseline=0.5)
    assert (found.last, found.completed) == (5, False)
    direct = (arrays["accuracy"][1] - arrays["accuracy"][0])[:, 4:6].mean()
    np.testing.assert_allclose(found.higher.mean, direct, atol=1e-6)
    assert race_facts.verdict(found)[0] is None


def test_a_run_that_was_never_finite_is_reported(tmp_path):
    """House rule: one sentence and no verdict, in the report and in the summary."""
    arrays, right = made_up(end=0.1, rise=0.1)
    arrays["accuracy"][1, 2] = np.nan
    arrays |= race_facts.averages(arrays, right)
    arrays |= {
        "epochs": arrays["steps"] / 8,
        "rungs": np.array([0.1, 0.3]),
        "rates": np.full(2, 0.3),
    }
    arrays["rung_losses"] = np.array([[0.7, 0.6], [0.7, np.nan]])
    found = race_facts.facts(arrays, baseline=0.6)
    assert race_facts.verdict(found)[0] is None
    words = {"title": "T", "task": "reviews", "setting": "S", "baseline": BASELINE}
    page = race_report.report(arrays, found, training.Training(seeds=4), **words)
    said = "not every run was finite before its first step"
    assert said in page
    assert said in race_report.summary(arrays, found, baseline=BASELINE)
    assert "nan" not in page.lower()
    assert "no longer finite: Gaussian, seed 3, from its start. Lower --learning-rate" in page
    assert "| Gaussian | 0.700 | diverged | 0.3 |" in page
    assert (
        "At an edge: softmax and Gaussian chose the rate at the upper edge of the ladder; a" in page
    )
    arrays |= {name: np.full((2, 4, 9), np.nan) for name in ("train_loss", "test_loss")}
    race_report.draw(arrays, tmp_path / "curves.png", baseline=BASELINE)
