from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import landscape

RNG = np.random.default_rng(1)


def tree_of(flat, dtype=np.float64):
    return {"a": jnp.asarray(flat[:4].reshape(2, 2), dtype), "b": jnp.asarray(flat[4:], dtype)}


MATRIX = RNG.normal(size=(7, 7))
CENTRE, FIRST, SECOND = RNG.normal(size=(3, 7))


def risk(theta):
    """A form of third order in seven numbers."""
    x = jnp.append(theta["a"].ravel(), theta["b"])
    return x @ jnp.asarray(MATRIX, x.dtype) @ x + jnp.sum(x**3)


def closed_form(x):
    return x @ MATRIX @ x + np.sum(x**3)


@pytest.mark.parametrize(("chunk", "dtype"), [(1, np.float64), (4, np.float32), (100, np.float64)])
def test_plane_and_line_against_a_loop(chunk, dtype):
    """Numpy loop: the risk at every point of a grid whose size no chunk divides."""
    trees = [tree_of(flat, dtype) for flat in (CENTRE, FIRST, SECOND)]
    a, b = np.linspace(-1, 1, 5), np.linspace(0, 2, 3)
    found = landscape.plane(risk, trees[0], (trees[1], trees[2]), a, b, chunk=chunk)
    expected = [[closed_form(CENTRE + s * FIRST + t * SECOND) for t in b] for s in a]
    assert found.dtype == dtype
    tolerance = round_off(dtype) * np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    along = landscape.line(risk, trees[0], trees[1], a, chunk=chunk)
    np.testing.assert_allclose(along, [closed_form(CENTRE + s * FIRST) for s in a], atol=tolerance)


def test_cliffs_are_data():
    """Closed form: log x is -inf at 0 and NaN below; the points beside them are right."""
    found = landscape.line(jnp.log, jnp.array(1.0), jnp.array(1.0), [-2, -1, 0, 1])
    np.testing.assert_allclose(found, [np.nan, -np.inf, 0, np.log(2)], rtol=round_off())


def test_projection_against_least_squares():
    """Independent library: numpy's least squares in a plane of skew directions."""
    path = RNG.normal(size=(6, 7))
    path[2] = CENTRE
    path[3] = CENTRE + 0.5 * FIRST - 2 * SECOND
    trees = [tree_of(flat) for flat in (CENTRE, FIRST, SECOND)]
    points = {"a": jnp.asarray(path[:, :4].reshape(6, 2, 2)), "b": jnp.asarray(path[:, 4:])}
    found = landscape.project(points, trees[0], (trees[1], trees[2]))
    basis = np.stack([FIRST, SECOND], axis=1)
    for time in range(6):
        away = path[time] - CENTRE
        steps = np.linalg.lstsq(basis, away, rcond=None)[0]
        share = np.sum((away - basis @ steps) ** 2) / max(np.sum(away**2), 1e-300)
        np.testing.assert_allclose(found.coordinates[time], steps, atol=round_off())
        np.testing.assert_allclose(found.residuals[time], share, atol=round_off())
    assert found.residuals[2] == 0


def wells(x):
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def test_barrier_of_two_wells():
    """Closed form: (x^2 - 1)^2 + y^2 climbs by 1 straight on; by 4 the way round through y = 2."""
    ends = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
    straight = landscape.barrier(wells, *ends, points=20)
    xs = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(straight.risks, (xs**2 - 1) ** 2, atol=round_off())
    np.testing.assert_allclose(straight.shares, (xs + 1) / 2, atol=round_off())
    np.testing.assert_allclose([straight.height, straight.instability], 1, rtol=round_off())
    round_way = landscape.barrier(
        wells, *ends, via=[jnp.array([-1.0, 2.0]), jnp.array([1.0, 2.0])], points=10, chunk=3
    )
    corners = np.array([[-1, 0], [-1, 2], [1, 2], [1, 0]], float)
    for index, share in enumerate(np.linspace(0, 1, 31)):
        at = min(int(3 * share + 1e-9), 2)
        point = corners[at] + (3 * share - at) * (corners[at + 1] - corners[at])
        np.testing.assert_allclose(round_way.risks[index], wells(point), atol=round_off())
    np.testing.assert_allclose(round_way.height, 5, rtol=round_off())


def test_barriers_of_convex_and_broken_risks():
    """Theorem: a convex risk has height 0 and the instability of its ends; NaN spreads."""
    start, end = jnp.array([1.0, 3.0]), jnp.array([-0.5, 1.0])
    found = landscape.barrier(lambda x: jnp.sum(x**2), start, end)
    assert float(found.height) == 0
    np.testing.assert_allclose(found.instability, (10 - 1.25) / 2, rtol=round_off())
    broken = landscape.barrier(lambda x: jnp.log(x[0]), start, end)
    assert np.isnan(broken.height)
    assert np.isnan(broken.instability)


def test_compiles_once():
    """Equality: other parameters, directions and steps of one shape trace the risk 0 times."""
    traces = []

    def counted(x):
        traces.append(None)
        return jnp.sum(x**2)

    counts = []
    for size in (1.0, 2.0):
        x = size * jnp.ones(3)
        landscape.plane(counted, x, (x, 2 * x), [0.0, size], [1.0, size])
        landscape.barrier(counted, x, 2 * x)
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def listed(x) -> Any:
    return [x]


X, PAIR = jnp.ones(2), (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: landscape.line(jnp.sum, X, (X,), [0.0]), "direction must have the structure"),
        (lambda: landscape.line(jnp.sum, X, jnp.ones(3), [0.0]), r"got \(3,\) for \(2,\)"),
        (lambda: landscape.line(jnp.sum, X, jnp.arange(2), [0.0]), "floating-point .*, got int"),
        (lambda: landscape.line(jnp.sum, jnp.arange(2), X, [0.0]), "parameters must be real"),
        (lambda: landscape.line(jnp.sum, X, X, []), "steps must be a non-empty list"),
        (lambda: landscape.line(jnp.sum, X, X, [np.nan]), "steps must be finite"),
        (lambda: landscape.line(jnp.sum, X, X, [0.0], chunk=0), "chunk must be an integer >= 1"),
        (lambda: landscape.line(jnp.sin, X, X, [0.0]), r"one real .* number, got shape \(2,\)"),
        (lambda: landscape.line(listed, X, X, [0.0]), "one real .* number, got list"),
        (lambda: landscape.plane(jnp.sum, X, (X, X, X), [0.0], [0.0]), "must be a pair, got 3"),
        (lambda: landscape.plane(jnp.sum, X, (X, jnp.ones(1)), [0.0], [0.0]), r"directions\[1\]"),
        (lambda: landscape.plane(jnp.sum, X, PAIR, [0.0], [[0.0]]), "second must be a non-empty"),
        (lambda: landscape.project(jnp.ones((0, 2)), X, PAIR), "trajectory must hold at least one"),
        (lambda: landscape.project(jnp.ones((4, 3)), X, PAIR), "each point of the trajectory must"),
        (lambda: landscape.project(jnp.ones((4, 2)), X, (X, 2 * X)), "finite and independent"),
        (lambda: landscape.project(jnp.ones((4, 2)), X, (X, 0 * X)), "finite and independent"),
        (lambda: landscape.barrier(jnp.sum, X, jnp.ones(3)), "every point of the path must"),
        (lambda: landscape.barrier(jnp.sum, X, X, points=1), "points must be an integer >= 2"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    """Closed form: what is wrong with the input, in one sentence."""
    with pytest.raises(ValueError, match=message):
        call()
