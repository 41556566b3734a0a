import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import head_loop, kernel_loop, particle

from meanfield import nn

RNG = np.random.default_rng(0)
TOKENS, DIM, DEPTH, WIDTH = 4, 3, 2, 3
SAMPLE = RNG.normal(size=(TOKENS, DIM))
MASK = np.array([True, True, False, True])


def heads():
    shapes = [(DEPTH, WIDTH, DIM, 2)] * 3 + [(DEPTH, WIDTH, 2, DIM)]
    return nn.Head(*(jnp.asarray(RNG.normal(size=shape)) for shape in shapes))


@pytest.mark.parametrize("name", ["softmax", "gaussian"])
def test_maps_of_a_network_against_a_loop(name):
    """Numpy loop: weights of every head, with the tokens of every layer by the residual update."""
    kernel = {"softmax": nn.softmax(), "gaussian": nn.gaussian()}[name]
    blocks = (
        nn.attention(dim=DIM, head_dim=2, kernel=kernel),
        nn.mlp(dim=DIM, activation=jnp.tanh),
    )
    network = nn.network(blocks, depth=DEPTH, kappa=(0.7, 1.3))
    particles = (heads(), nn.Neuron(*(jnp.asarray(RNG.normal(size=s)) for s in (
        (DEPTH, 2, DIM), (DEPTH, 2), (DEPTH, 2, DIM)))))  # fmt: skip
    (found,) = nn.attention_maps(network, particles, jnp.asarray(SAMPLE), jnp.asarray(MASK))
    states = network.states(particles, jnp.asarray(SAMPLE), jnp.asarray(MASK))
    pairs = np.broadcast_to(MASK, (TOKENS, TOKENS))
    tokens = SAMPLE
    for layer in range(DEPTH):
        np.testing.assert_allclose(states[0][layer], tokens, rtol=round_off(), atol=round_off())
        update = np.zeros_like(tokens)
        for head in range(WIDTH):
            one = particle(particles[0], layer, head)
            exact = kernel_loop(name, tokens @ one[0], tokens @ one[1], pairs)
            np.testing.assert_allclose(
                found[layer, head], exact, rtol=round_off(), atol=round_off()
            )
            update += head_loop(tokens, one, name, pairs) / WIDTH
        tokens = tokens + 0.7 / DEPTH * update
        np.testing.assert_allclose(states[1][layer], tokens, rtol=round_off(), atol=round_off())
        weight_in, bias, weight_out = particle(particles[1], layer)
        tokens = tokens + 1.3 / DEPTH * np.tanh(tokens @ weight_in.T + bias) @ weight_out / 2
    end = network.apply(particles, jnp.asarray(SAMPLE), jnp.asarray(MASK))
    np.testing.assert_allclose(end, tokens, rtol=round_off(), atol=round_off())


def test_entropy_against_a_loop():
    """Numpy loop: rows divided by their sums; a mask of queries; a row without weights has 0."""
    weights = RNG.gamma(0.3, size=(2, 5, TOKENS, TOKENS))
    weights[0, 1, 2] = 0.0
    for queries in (None, MASK):
        expected = np.zeros((2, 5))
        counted = np.arange(TOKENS) if queries is None else np.flatnonzero(queries)
        for index in np.ndindex(2, 5):
            for a in counted:
                row = weights[index][a]
                shares = row[row > 0] / row.sum() if row.any() else np.ones(1)
                expected[index] -= np.sum(shares * np.log(shares)) / len(counted)
        given = None if queries is None else jnp.asarray(queries)
        found = nn.attention_entropy(jnp.asarray(weights), queries=given)
        np.testing.assert_allclose(found, expected, rtol=round_off())


def test_uniform_attention_and_permutations():
    """Closed form: uniform attention has entropy log n and rank 1, a permutation 0 and n."""
    maps = jnp.stack([jnp.full((6, 6), 1 / 6), jnp.eye(6)[RNG.permutation(6)]])
    # The Gaussian kernel takes less of the same: neither entropy nor rank sees the factor.
    for factor in (1.0, 0.3):
        np.testing.assert_allclose(
            nn.attention_entropy(factor * maps), [np.log(6), 0], atol=round_off()
        )
        np.testing.assert_allclose(nn.effective_rank(factor * maps), [1, 6], rtol=1e-12)
    assert np.isnan(nn.attention_entropy(-maps)).all()
    assert float(nn.effective_rank(jnp.zeros((3, 2)))) == 0


def test_effective_rank_against_a_loop():
    """Independent library: numpy's singular values; planted ones, of some rows, of float32."""
    left, right = (np.linalg.qr(RNG.normal(size=(7, 7)))[0] for _ in range(2))
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.0])
    shares = values[:4] / values.sum()
    matrix = left[:, :5] * values @ right[:5]
    exact = np.exp(-np.sum(shares * np.log(shares)))
    np.testing.assert_allclose(nn.effective_rank(jnp.asarray(matrix)), exact, rtol=1e-12)
    rows = np.array([True, False, True, True, False, True, False])
    shares = np.linalg.svd(matrix[rows], compute_uv=False)
    shares /= shares.sum()
    exact_rows = np.exp(-np.sum(shares * np.log(shares)))
    of_rows = nn.effective_rank(jnp.asarray(np.stack([matrix] * 2)), rows=jnp.asarray(rows))
    np.testing.assert_allclose(of_rows, [exact_rows] * 2, rtol=1e-12)
    single = nn.effective_rank(jnp.asarray(matrix, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-4)


def cosine(a, b):
    return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)


@pytest.mark.parametrize("threshold", [-0.2, 0.5])
def test_clustering_against_a_loop(threshold):
    """Numpy loop: pairs counted one by one, with and without a mask; tokens that met have 1."""
    tokens = RNG.normal(size=(3, TOKENS, 2))
    tokens[0, 1] = 0.0
    for mask in (None, MASK):
        kept = np.arange(TOKENS) if mask is None else np.flatnonzero(mask)
        expected = []
        for sample in tokens:
            close = [
                cosine(sample[a], sample[b]) > threshold
                for i, a in enumerate(kept)
                for b in kept[i + 1 :]
            ]
            expected.append(np.mean(close))
        given = None if mask is None else jnp.asarray(mask)
        found = nn.token_clustering(jnp.asarray(tokens), threshold=threshold, mask=given)
        np.testing.assert_allclose(found, expected, rtol=round_off())
    met = jnp.asarray(np.array([1.0, 2.0, 5.0])[:, None] * tokens[0, :1])
    assert float(nn.token_clustering(met, threshold=0.999)) == 1
    assert np.isnan(nn.token_clustering(met, mask=jnp.array([True, False, False])))
    assert np.isnan(nn.token_clustering(met * jnp.nan))


def test_conditioning_against_numpy():
    """Independent library: numpy's condition numbers; infinite where rank is lost, not with X."""
    attended, tokens = RNG.normal(size=(2, 3, 5, 4))
    found = nn.attention_conditioning(jnp.asarray(attended), jnp.asarray(tokens))
    np.testing.assert_allclose(found.attention, np.linalg.cond(attended), rtol=1e-12)
    np.testing.assert_allclose(found.residual, np.linalg.cond(attended + tokens), rtol=1e-12)
    # Rank one up to round-off, exactly zero, and no number at all.
    maps = np.stack([np.ones((5, 5)) / 5, np.zeros((5, 5)), np.full((5, 5), np.nan)])
    lost = nn.attention_conditioning(jnp.asarray(maps), jnp.asarray(np.stack([np.eye(5)] * 3)))
    np.testing.assert_array_equal(lost.attention, [np.inf, np.inf, np.nan])
    np.testing.assert_allclose(lost.residual, [2, 1, np.nan], rtol=round_off())


def test_refusals():
    """Closed form: what is wrong with the input, in one sentence."""
    network = nn.network((nn.mlp(dim=DIM),), depth=1)
    particles = network.init(jax.random.key(0), width=2)
    with pytest.raises(ValueError, match="^network must have a block of attention heads, got neu"):
        nn.attention_maps(network, particles, jnp.asarray(SAMPLE))
    with pytest.raises(ValueError, match=r"^tokens must be at least two, got shape \(1, 3\)"):
        nn.token_clustering(jnp.ones((1, 3)))
    for threshold in (1.0, -2.0, np.nan):
        with pytest.raises(ValueError, match="^threshold must be a cosine"):
            nn.token_clustering(jnp.ones((2, 3)), threshold=threshold)
