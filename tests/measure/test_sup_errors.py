import math

import jax
import linear_heads
import numpy as np
import pytest
from helpers import round_off

from meanfield import measure, rates
from meanfield.measure import Replicas, Trajectory

WIDTHS, DEPTHS = (4, 8, 16, 32, 64), (4, 8, 16, 32)
RIVALS = {name: rates.LAWS[name] for name in ("a/sqrt(M) + b/L", "a/sqrt(LM) + b/L")}


def ensemble(widths, depths, *, nested=True, seeds=3, times=2):
    """Replicas of random trajectories of three probes."""
    rng = np.random.default_rng(11)
    trajectories = tuple(
        Trajectory(
            rng.normal(size=(seeds, times, 3)),
            rng.normal(size=(seeds, times)),
            rng.normal(size=(seeds, times, depth, width, 2)),
        )
        for width, depth in zip(widths, depths, strict=True)
    )
    return Replicas(tuple(widths), tuple(depths), trajectories, nested)


def mean_gap(x, y):
    """A distance: that of the means."""
    return np.linalg.norm(np.mean(x, axis=0) - np.mean(y, axis=0))


@pytest.mark.parametrize("kind", ["own", "mean", "limit", "exact"])
def test_errors(kind):
    """Numpy loop: replica by replica, time by time, layer by layer."""
    runs = ensemble([4, 9, 4, 9], [1, 1, 2, 2])
    wide = ensemble([12, 12, 12], [1, 2, 6], seeds=5)
    exact = Trajectory(*(leaf[0] for leaf in wide.trajectories[2]))
    reference = {
        "own": lambda: measure.own_reference(runs),
        "mean": lambda: measure.mean_reference(wide),
        "limit": lambda: measure.mean_reference(wide, depth=6),
        "exact": lambda: measure.exact_reference(exact),
    }[kind]()
    errors = measure.sup_errors(runs, reference, distance=mean_gap)
    kept = [0, 2] if kind == "own" else [0, 1, 2, 3]
    assert errors.widths.tolist() == [runs.widths[place] for place in kept]
    assert errors.depths.tolist() == [runs.depths[place] for place in kept]
    floors = {"limit": [6.0] * 4, "exact": [math.inf] * 4}.get(kind, errors.depths.tolist())
    assert errors.reference[1].tolist() == floors
    assert errors.reference[0] == {"own": 9.0, "exact": math.inf}.get(kind, 60.0)
    assert errors.heads is not None
    for column, place in enumerate(kept):
        own, depth = runs.trajectories[place], runs.depths[place]
        against = reference.trajectories[0 if reference.limit else depth - 1]
        layers = [depth * [0], [1, 4] if depth == 2 else [3]][reference.limit]
        layers = layers if reference.limit else range(depth)
        for seed in range(3):
            other = Trajectory(*(leaf[seed if kind == "own" else 0] for leaf in against))
            gaps = [
                np.sqrt(np.mean((own.predictions[seed, t] - other.predictions[t]) ** 2))
                for t in (0, 1)
            ]
            far = [
                [mean_gap(own.clouds[seed, t, i], other.clouds[t, j]) for i, j in enumerate(layers)]
                for t in (0, 1)
            ]
            found = errors.predictions[seed, column], errors.risk[seed, column]
            heads = max(np.sqrt(np.mean(np.square(row))) for row in far)
            risk = np.abs(own.risk[seed] - other.risk).max()
            np.testing.assert_allclose(
                (*found, errors.heads[seed, column]), (max(gaps), risk, heads), rtol=round_off()
            )


def test_over_widths():
    """Equality: column w of the values is the configuration of width w, in the order of rates."""
    runs = ensemble([4, 8, 16, 4, 8, 16], [1, 1, 1, 3, 3, 3], seeds=7)
    values, widths = measure.over_widths(runs, depth=3)
    assert widths.tolist() == [4, 8, 16]
    np.testing.assert_array_equal(values.risk[:, 1], runs.trajectories[4].risk)
    limit = rates.infinite_width(values.predictions, widths, covariance="nested")
    assert limit.value.shape == (2, 3)


@pytest.fixture(scope="module")
def limits():
    """Wide networks at the depths under test, and at a large one."""
    return measure.replicas(
        jax.random.key(2),
        linear_heads.quick_draw("independent"),
        linear_heads.run_together,
        widths=[64],
        depths=[*DEPTHS, 64],
        seeds=48,
        batched=True,
    )


@pytest.mark.parametrize("coupling", ["independent", "path"])
def test_couplings_obey_their_laws(coupling, limits):
    """Theorem: errors 1/sqrt(LM) of independent draws, 1/sqrt(M) of paths, sup over training.

    Five widths, four depths, 48 replicas (the error of one is nearly the size of one normal
    number, whose logarithm varies by 1.1): the fluctuation at equal depth, and bias beside it.
    """
    runs = measure.replicas(
        jax.random.key(1),
        linear_heads.quick_draw(coupling),
        linear_heads.run_together,
        widths=WIDTHS,
        depths=DEPTHS,
        seeds=48,
        nested=False,
        batched=True,
    )
    errors = measure.sup_errors(runs, measure.mean_reference(limits))
    independent = coupling == "independent"
    variable = errors.effective_widths * (errors.depths if independent else 1.0)
    for values in (errors.predictions, errors.risk):
        fit = rates.log_log_slope(variable, values)
        assert fit.low <= -0.5 <= fit.high
        assert fit.high - fit.low < 0.16
        in_depth = rates.log_log_slope(errors.depths, values)
        assert (in_depth.high < -0.3) if independent else (in_depth.low > -0.2)
    errors = measure.sup_errors(runs, measure.mean_reference(limits, depth=64))
    ranking = rates.law_ranking(
        np.random.default_rng(0),
        errors.predictions,
        errors.widths,
        errors.depths,
        RIVALS,
        reference=errors.reference,
    )
    assert ranking.chosen == ("a/sqrt(LM) + b/L" if independent else "a/sqrt(M) + b/L")
    assert not ranking.rivals


def test_bias_of_the_depth_alone():
    """Order of convergence: networks of the same paths differ by 1/L, from replica to replica."""
    runs = measure.replicas(
        jax.random.key(3),
        linear_heads.quick_draw("path"),
        linear_heads.run_together,
        widths=[64],
        depths=[*DEPTHS, 64],
        seeds=16,
        batched=True,
    )
    errors = measure.sup_errors(runs, measure.own_reference(runs, depth=64))
    steps = 1 / (1 / errors.depths - 1 / 64)
    fit = rates.log_log_slope(steps, errors.predictions)
    assert abs(fit.slope + 1) < 0.1
    # The fluctuations of 1/sqrt(M) = 1/8 are gone.
    assert fit.high - fit.low < 0.05
    assert np.isinf(errors.effective_widths).all()


def test_two_widths_are_no_law():
    """Closed form: what runs at two widths say is refused by every fit."""
    errors = measure.sup_errors(
        ensemble([4, 8], [2, 2], seeds=9), measure.mean_reference(ensemble([16], [2]))
    )
    with pytest.raises(ValueError, match="needs >= 3 different widths, got 2; add widths"):
        rates.law_fit(
            np.random.default_rng(0),
            errors.risk,
            errors.widths,
            errors.depths,
            rates.LAWS["a/sqrt(M)"],
            reference=errors.reference,
        )


WITHOUT = Replicas((4,), (1,), (Trajectory(np.ones((2, 2, 3)), np.ones((2, 2))),), True)


@pytest.mark.parametrize(
    ("runs", "reference", "distance", "said"),
    [
        (ensemble([8], [1]), measure.mean_reference(ensemble([4], [1])), None, "width 4 against 8"),
        (
            ensemble([4], [3]),
            measure.mean_reference(ensemble([8], [2]), depth=2),
            None,
            "shallower than the networks under test: depth 2 against 3; use a deeper reference",
        ),
        (
            ensemble([4], [3]),
            measure.mean_reference(ensemble([8], [2])),
            None,
            r"has depths \[2\], not 3; run it at the depths under test",
        ),
        (
            ensemble([4], [2]),
            measure.mean_reference(ensemble([8], [2], times=1)),
            None,
            "same times and probes, got predictions of shapes .3, 2, 3. and .1, 1, 3.",
        ),
        (
            ensemble([4], [2]),
            measure.own_reference(ensemble([4], [2])),
            None,
            "every network is its own reference of width 4; add narrower ones",
        ),
        (
            ensemble([4], [2], nested=False),
            measure.own_reference(ensemble([8], [2])),
            None,
            "widths are not nested: .* give the runs it was made of, or compare with mean_ref",
        ),
        (
            ensemble([4], [2]),
            measure.own_reference(ensemble([8], [2], seeds=5)),
            None,
            "one network or one for each of 3 replicas, got 5; give the runs",
        ),
        (WITHOUT, measure.mean_reference(WITHOUT), mean_gap, "a distance needs the clouds"),
    ],
)
def test_refused(runs, reference, distance, said):
    """Closed form: the message says what was got and what to do."""
    with pytest.raises(ValueError, match=said):
        measure.sup_errors(runs, reference, distance=distance)


@pytest.mark.parametrize(("depth", "got"), [(None, "None"), (5, "5")])
def test_depth_of_the_values(depth, got):
    """Closed form: one of several depths must be named."""
    with pytest.raises(ValueError, match=rf"depth must be one of \[1, 3\], got {got}"):
        measure.over_widths(ensemble([4, 4], [1, 3]), depth=depth)
