import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import landscape
from meanfield.landscape.lanczos import ritz_pairs

RNG = np.random.default_rng(0)
KEY = jax.random.key(2)
SIZE = 120
BASIS = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0]
VALUES = np.concatenate([[-12.0, 10.0], np.linspace(-3, 3, SIZE - 2)])
MATRIX = (BASIS * VALUES) @ BASIS.T


def form(theta):
    """A quadratic form whose Hessian is MATRIX, of a tree of two leaves, in their precision."""
    x = jnp.append(theta["a"].ravel(), theta["b"])
    return x @ jnp.asarray(MATRIX, x.dtype) @ x / 2


def origin(dtype):
    return {"a": jnp.zeros((8, 5), dtype), "b": jnp.zeros(SIZE - 40, dtype)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_signs(dtype):
    """Closed form: -12 beats 10 in size, and the largest is still 10; and so their vectors."""
    found = landscape.hessian_extremes(KEY, form, origin(dtype), steps=40, tolerance=1e-4)
    assert found.largest.dtype == dtype
    np.testing.assert_allclose([found.largest, found.smallest], [10, -12], rtol=round_off(dtype))
    assert bool(found.converged)
    for vector, column in zip(found.vectors, (1, 0), strict=True):
        flat = np.append(vector["a"], vector["b"])
        np.testing.assert_allclose(abs(flat @ BASIS[:, column]), 1, rtol=round_off(dtype))


def test_too_few_steps():
    """Theorem: Ritz values lie inside the spectrum, an eigenvalue within the residual of each."""
    found = landscape.hessian_extremes(KEY, form, origin(np.float64), steps=5, tolerance=1e-6)
    assert not bool(found.converged)
    assert int(found.products) == 7
    assert -12 < found.smallest < found.largest < 10
    for value, residual in zip((found.largest, found.smallest), found.residuals, strict=True):
        assert 1e-6 < np.min(np.abs(VALUES - value)) <= residual
    flat = np.append(found.vectors[0]["a"], found.vectors[0]["b"])
    exact = np.linalg.norm(MATRIX @ flat - found.largest * flat)
    np.testing.assert_allclose(found.residuals[0], exact, rtol=1e-10)


def test_metric():
    """Independent library: numpy's eigenvalues of sqrt(s) H sqrt(s), and their sum."""
    metric = {"a": 9.0, "b": 0.5}
    roots = np.sqrt(np.repeat([9.0, 0.5], [40, SIZE - 40]))
    exact = np.linalg.eigvalsh(roots[:, None] * MATRIX * roots)
    found = landscape.hessian_extremes(KEY, form, origin(np.float64), steps=500, metric=metric)
    np.testing.assert_allclose(
        [found.smallest, found.largest], exact[[0, -1]], atol=round_off() * abs(exact).max()
    )
    trace = landscape.hessian_trace(KEY, form, origin(np.float64), probes=20, metric=metric)
    assert abs(float(trace.mean) - exact.sum()) < 4 * float(trace.standard_error)


def test_blocks_within_marks():
    """Independent library: numpy's eigenvalues of blocks of the matrix; one program for all."""
    traces, counts = [], []

    def counted(theta):
        traces.append(None)
        return form(theta)

    for rows, tail in (([1, 6], 30), ([0, 2, 3], 25)):
        column = np.isin(np.arange(8), rows)[:, None]
        within = {"a": column, "b": np.arange(SIZE - 40) >= SIZE - 40 - tail}
        places = np.flatnonzero(np.append(np.broadcast_to(column, (8, 5)).ravel(), within["b"]))
        roots = np.where(places < 40, 2.0, 1.0)
        exact = np.linalg.eigvalsh(roots[:, None] * MATRIX[np.ix_(places, places)] * roots)
        options = {"metric": {"a": 4.0, "b": 1.0}, "within": within}
        # Of 50 steps 40 are taken, as many as the block has numbers: they find all of it.
        found = landscape.hessian_extremes(KEY, counted, origin(np.float64), steps=50, **options)
        assert int(found.products) == 42
        np.testing.assert_allclose(
            [found.smallest, found.largest], exact[[0, -1]], rtol=round_off()
        )
        flat = np.append(found.vectors[0]["a"], found.vectors[0]["b"])
        assert not np.delete(flat, places).any()
        trace = landscape.hessian_trace(KEY, counted, origin(np.float64), probes=30, **options)
        assert abs(float(trace.mean) - exact.sum()) < 4 * float(trace.standard_error)
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def test_trace():
    """Closed form: the trace within 4 errors, each of the size that Hutchinson's variance has."""
    found = landscape.hessian_trace(KEY, form, origin(np.float64), probes=400)
    variance = 2 * (np.sum(MATRIX**2) - np.sum(np.diag(MATRIX) ** 2))
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance / 400), rtol=0.2)
    assert abs(float(found.mean) - VALUES.sum()) < 4 * float(found.standard_error)
    # The sum of sizes, which forgets signs, is far outside.
    assert abs(float(found.mean) - np.abs(VALUES).sum()) > 20 * float(found.standard_error)


def test_ritz_pairs_of_exhausted_spaces():
    """Closed form: the identity, a matrix of rank two, and zero have one, three and one nodes."""
    start = RNG.normal(size=30)
    frame = np.linalg.qr(RNG.normal(size=(30, 2)))[0]
    low_rank = frame @ np.diag([4.0, -7.0]) @ frame.T
    coordinates = np.append(frame.T @ start, 0) ** 2 / (start @ start)
    coordinates[2] = 1 - coordinates.sum()
    run = jax.jit(lambda matrix: ritz_pairs(lambda v: matrix @ v, jnp.asarray(start), 12))
    for matrix, nodes, masses in [
        (2.5 * np.eye(30), [2.5], [1.0]),
        (low_rank, [4.0, -7.0, 0.0], coordinates),
        (np.zeros((30, 30)), [0.0], [1.0]),
    ]:
        found = run(jnp.asarray(matrix))
        weights = np.where(found.alive, found.rotations[0] ** 2, 0)
        np.testing.assert_allclose(weights.sum(), 1, rtol=round_off())
        for node, mass in zip(nodes, masses, strict=True):
            near = np.abs(found.nodes - node) < 1e-10
            np.testing.assert_allclose(weights[near].sum(), mass, atol=round_off())
        assert np.all(np.diff(found.nodes) >= 0)
    assert np.isnan(run(jnp.full((30, 30), jnp.nan)).nodes).all()


def test_flat_and_broken_risks():
    """Closed form: a linear risk has extremes 0, converged; a NaN Hessian has none."""
    flat = landscape.hessian_extremes(KEY, jnp.sum, jnp.ones(7))
    assert (float(flat.largest), float(flat.smallest), bool(flat.converged)) == (0, 0, True)
    broken = landscape.hessian_extremes(KEY, lambda x: jnp.sum(jnp.sqrt(x)), -jnp.ones(7))
    assert np.isnan(broken.largest)
    assert not bool(broken.converged)
    single = landscape.hessian_extremes(KEY, lambda x: -(x**2), jnp.array(3.0))
    assert float(single.largest) == float(single.smallest) == -2


def test_compiles_once():
    """Equality: other parameters of one shape trace the risk 0 times."""
    traces = []

    def counted(x):
        traces.append(None)
        return jnp.sum(x**4)

    counts = []
    for size in (1.0, 2.0):
        landscape.hessian_extremes(KEY, counted, size * jnp.ones(3))
        landscape.hessian_trace(KEY, counted, size * jnp.ones(3), probes=3)
        landscape.hessian_blocks(counted, size * jnp.ones(3), axes=1)
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def within(x, marks):
    return landscape.hessian_extremes(KEY, jnp.sum, x, within=marks)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: landscape.hessian_extremes(KEY, jnp.sum, x, steps=0), "steps must be an int"),
        (lambda x: landscape.hessian_extremes(KEY, jnp.sum, x, tolerance=0.0), "tolerance must be"),
        (lambda x: landscape.hessian_extremes(KEY, jnp.cos, x), r"number, got shape \(3,\)"),
        (lambda x: landscape.hessian_extremes(KEY, jnp.sum, {"x": 1}), "parameters must be real"),
        (lambda x: landscape.hessian_trace(KEY, jnp.sum, x, probes=1), "probes must be an integer"),
        (lambda x: landscape.hessian_trace(KEY, jnp.sum, x, probes=0), ">= 2, got 0"),
        (lambda x: landscape.hessian_trace(KEY, jnp.sum, ()), "got an empty tree"),
        (lambda x: within(x, (jnp.ones(3),)), "within must have the structure"),
        (lambda x: within(x, jnp.ones(2)), r"within must broadcast .* got \(2,\) for \(3,\)"),
        (lambda x: within(x, 0.5), "within must be 0 and 1 alone"),
        (lambda x: within(x, 0.0), "within must mark at least one parameter"),
    ],
)
def test_refusals(call, message):
    """Closed form: what is wrong with the input, in one sentence."""
    with pytest.raises(ValueError, match=message):
        call(jnp.ones(3))
