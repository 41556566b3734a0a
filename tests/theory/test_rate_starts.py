import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, problems

from meanfield import theory

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("sizes", [(2, 2, 2, 2, 2), (3, 2, 4, 3, 1)])
def test_a_sufficient_start_of_a_requested_size(name, sizes):
    """Theorem: N, n, D, H, k given, at HD = Nn and beyond, the start passes the ball test."""
    samples, tokens, dim, heads, head_dim = sizes
    _, inputs, targets = problems(4, samples=samples, tokens=tokens, dim=dim, outputs=1)
    layer, found = theory.sufficient_start(
        KEY, KERNELS[name], inputs, targets, heads=heads, head_dim=head_dim
    )
    assert layer.value.shape == (heads, dim, head_dim)
    assert found.passes
    assert found.margin >= 1.1 * (1 - 1e-9)
    # That size is the threshold or beyond; left to itself the search finds the threshold.
    smallest, passed = theory.sufficient_start(
        KEY, KERNELS[name], inputs, targets, head_dim=head_dim
    )
    assert len(smallest.value) == -(-samples * tokens // dim)
    assert passed.passes
    again = theory.ball_test(KERNELS[name], layer, inputs, targets)
    assert again == found
    features = theory.attention_features(KERNELS[name], layer, inputs)
    flat = np.asarray(features).reshape(len(features), -1)
    assert np.linalg.matrix_rank(flat) == samples * tokens


@pytest.mark.parametrize("name", KERNELS)
def test_the_smallest_number_of_heads(name):
    """Independent path: the layer cut to H heads, one after the other, tested by itself."""
    _, inputs, targets = problems(5, samples=3, tokens=2, dim=2, outputs=1)
    start = theory.silent_start(gain={"softmax": 3e6, "gaussian": 600.0}[name])
    found = theory.smallest_heads(
        KEY, KERNELS[name], inputs, targets, start=start, head_dim=2, most=30
    )
    layer = start(KEY, 30, 2, 2, 1)
    features = np.asarray(theory.attention_features(KERNELS[name], layer, inputs))
    for each in found.tries:
        part = features[:, : each.heads].reshape(6, -1)
        assert each.full_rank == (np.linalg.matrix_rank(part) == 6)
        np.testing.assert_allclose(each.sigma, np.linalg.svd(part)[1][-1], rtol=1e-6)
    last = jax.tree.map(lambda leaf: leaf[: found.tries[-1].heads], layer)
    alone = theory.ball_test(KERNELS[name], last, inputs, targets)
    np.testing.assert_allclose(found.tries[-1].margin, alone.margin, rtol=1e-6)
    assert [each.heads for each in found.tries] == list(range(3, 3 + len(found.tries)))
    assert found.rank == 3
    assert found.heads == found.tries[-1].heads > 3
    assert all(each.margin <= 1 for each in found.tries[:-1])


def test_a_search_without_success():
    """Theorem: equal queries give equal rows of features, whatever the number of heads."""
    inputs, targets = jnp.ones((2, 2, 3)), jnp.ones((2, 2, 1))
    found = theory.smallest_heads(
        KEY, KERNELS["softmax"], inputs, targets,
        start=theory.random_start(), head_dim=1, most=4,
    )  # fmt: skip
    assert (found.rank, found.heads, len(found.tries)) == (None, None, 3)
    with pytest.raises(
        ValueError, match="^B must have full row rank 4, got less to round-off: raise"
    ):
        theory.sufficient_start(KEY, KERNELS["softmax"], inputs, targets, heads=4, head_dim=1)


def test_laws_of_the_starts():
    """Closed form: variances 1/fan-in, W^V = 0, W_h^O with orthonormal columns."""
    layer = theory.random_start(2.0)(KEY, 50, 8, 16, 3)
    for leaf, fan in zip(layer, (8, 8, 8, 16), strict=True):
        spread = float(jnp.std(leaf)) * np.sqrt(fan)
        # The standard error of a standard deviation is about 1/sqrt(2 size).
        assert abs(spread - 2.0) < 4 * 2.0 / np.sqrt(2 * leaf.size)
    quiet = theory.silent_start(2.0, gain=5.0)(KEY, 3, 8, 4, 2)
    gram = jnp.einsum("mkc,mkz->mcz", quiet.output, quiet.output)
    np.testing.assert_allclose(gram, np.broadcast_to(25 * np.eye(2), (3, 2, 2)), atol=1e-12)
    assert not np.any(quiet.value)


def test_refusals():
    """Closed form: sizes below the thresholds."""
    _, inputs, targets = problems(6)
    given = KEY, KERNELS["softmax"], inputs[..., :2], targets
    with pytest.raises(ValueError, match="^heads must be >= Nn/D = 2, got 1"):
        theory.sufficient_start(*given, heads=1, head_dim=2)
    with pytest.raises(ValueError, match="^head_dim must be >= the number of outputs 2, got 1"):
        theory.sufficient_start(*given, heads=2, head_dim=1)
    with pytest.raises(ValueError, match="^margin must be > 1, got 1.0"):
        theory.sufficient_start(*given, heads=2, head_dim=2, margin=1.0)
    with pytest.raises(ValueError, match="^most must be an integer >= 2, got 1"):
        theory.smallest_heads(*given, start=theory.silent_start(), head_dim=2, most=1)
    with pytest.raises(ValueError, match="^gain must be a finite number > 0, got 0"):
        theory.silent_start(gain=0.0)
    with pytest.raises(ValueError, match="^scale must be a finite number > 0, got nan"):
        theory.random_start(np.nan)
