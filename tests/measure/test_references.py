import numpy as np
import pytest

from meanfield import measure
from meanfield.measure import Replicas, Trajectory

RNG = np.random.default_rng(7)


def ensemble(widths, depths, *, nested=True, seeds=6, dim=2):
    """Replicas of random trajectories of two times, three probes."""
    trajectories = tuple(
        Trajectory(
            RNG.normal(size=(seeds, 2, 3)),
            RNG.normal(size=(seeds, 2)),
            RNG.normal(size=(seeds, 2, depth, width, dim)),
        )
        for width, depth in zip(widths, depths, strict=True)
    )
    return Replicas(tuple(widths), tuple(depths), trajectories, nested)


def test_mean_reference():
    """Numpy loop: means over seeds of the widest networks; the particles of all of them."""
    wide = ensemble([4, 9, 4, 9], [1, 1, 2, 2])
    reference = measure.mean_reference(wide)
    assert (reference.depths, reference.width, reference.effective) == ((1, 2), 9.0, 54.0)
    assert (reference.limit, reference.nested) == (False, False)
    for found, seen in zip(reference.trajectories, wide.trajectories[1::2], strict=True):
        np.testing.assert_allclose(found.predictions[0], sum(seen.predictions) / 6, rtol=1e-14)
        np.testing.assert_allclose(found.risk[0], sum(seen.risk) / 6, rtol=1e-14)
        pooled = np.concatenate([seen.clouds[seed] for seed in range(6)], axis=2)
        np.testing.assert_array_equal(found.clouds[0], pooled)
    limit = measure.mean_reference(wide, depth=2)
    assert (limit.depths, limit.limit) == ((2,), True)
    np.testing.assert_array_equal(limit.trajectories[0].risk, reference.trajectories[1].risk)


def test_own_reference():
    """Equality: row s of the reference is replica s of the widest network of each depth."""
    runs = ensemble([4, 9, 4, 9], [1, 1, 2, 2])
    reference = measure.own_reference(runs)
    assert (reference.effective, reference.nested) == (9.0, True)
    assert reference.trajectories == (runs.trajectories[1], runs.trajectories[3])


@pytest.mark.parametrize("nested", [False, True])
def test_effective_width(nested):
    """Theorem: the variance of the difference of two means, of 4e4 draws, is 1/M_eff to 4 s.e."""
    draws = RNG.normal(size=(40_000, 3, 12))
    widths, own = np.array([2, 3, 6]), draws if nested else RNG.normal(size=draws.shape)
    errors = [own[:, 0, :m].mean(1) - draws[:, 0].mean(1) for m in widths]
    found = np.var(errors, axis=1) * measure.effective_width(widths, 12, nested=nested)
    np.testing.assert_allclose(found, 1.0, rtol=0, atol=4 * np.sqrt(2 / 40_000))


def test_effective_width_of_the_limit():
    """Closed form: against the limit itself there is nothing to correct."""
    assert measure.effective_width([3, 5], np.inf).tolist() == [3.0, 5.0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: measure.own_reference(ensemble([4], [1], nested=False)),
            "widths are not nested.*nested=True, or compare with mean_reference",
        ),
        (lambda: measure.mean_reference(ensemble([4], [1]), depth=3), r"one of \[1\], got 3"),
        (
            lambda: measure.effective_width([4, 8], 6),
            "narrower than the networks under test: width 6 against 8; use a wider reference",
        ),
        (
            lambda: measure.effective_width([4, 8], 8, nested=True),
            "width 8 nested in a reference of that width is compared with itself",
        ),
        (lambda: measure.effective_width([], 8), "widths must be positive and at least one"),
        (lambda: measure.effective_width([0, 3], 8), "widths must be positive and at least one"),
    ],
)
def test_refused(call, said):
    """Closed form: the message says what was got and what to do."""
    with pytest.raises(ValueError, match=said):
        call()
