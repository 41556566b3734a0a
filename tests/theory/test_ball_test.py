import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, problems, weights_by_loop
from scipy import optimize

from meanfield import nn, theory


def ball_by_loop(name, layer, inputs, targets, share):
    """R and the bound of the path, sample by sample and head by head, bandwidth and scale plain."""
    query, key, value, output = (np.asarray(leaf) for leaf in layer)
    x, y = np.asarray(inputs), np.asarray(targets)
    (samples, tokens, _), (heads, _, head_dim) = x.shape, query.shape
    norm = functools.partial(np.linalg.norm, ord=2)

    def slope(i, h, radius):
        """|d(S_ih X_i)| over |d(W_h^Q, W_h^K)|, anywhere in the ball."""
        if name == "gaussian":
            constant = np.sqrt(2 * tokens) * np.exp(-0.5) * head_dim**-0.25
        else:
            both = [norm(x[i] @ w[h]) + norm(x[i]) * radius for w in (query, key)]
            constant = np.sqrt(both[0] ** 2 + both[1] ** 2) / 2 / np.sqrt(head_dim)
        return constant * norm(x[i]) ** 2

    def moved(radius):
        sums = [sum(slope(i, h, radius) ** 2 for i in range(samples)) for h in range(heads)]
        return radius * np.sqrt(max(sums))

    mixed = [
        [weights_by_loop(name, x[i] @ query[h], x[i] @ key[h]) @ x[i] for h in range(heads)]
        for i in range(samples)
    ]
    sigma = np.linalg.svd(np.vstack([np.hstack(row) for row in mixed]))[1][samples * tokens - 1]
    errors = [
        sum(mixed[i][h] @ value[h] @ output[h] for h in range(heads)) - y[i] for i in range(samples)
    ]
    risk = share / 2 * sum(np.sum(error**2) for error in errors)
    outer = min(np.linalg.svd(each)[1][y.shape[2] - 1] for each in output)
    pl = share * sigma**2 * outer**2 / 4
    radius = optimize.brentq(lambda r: moved(r) - sigma / 2, 0, 1e3, xtol=1e-15, rtol=1e-14)
    whole = np.sqrt(8 * risk / pl)
    steep = [
        slope(i, h, radius) * (norm(value[h]) + whole) * norm(output[h])
        for i in range(samples) for h in range(heads)
    ]  # fmt: skip
    # papers' 2 G sqrt(2 f_0) / mu_eff, for s = 1; |grad f| = s G |E| otherwise, and f = s |E|^2/2.
    travel = 2 * np.sqrt(np.sum(np.square(steep))) * np.sqrt(2 * share * risk) / pl
    return radius, whole, travel


@pytest.mark.parametrize("name", KERNELS)
def test_radius_and_length_against_loops(name):
    """Numpy loop: R and both bounds of the path, at random and silent starts, 1/N or not."""
    smaller = []
    for seed, average in itertools.product(range(6), (False, True)):
        layer, inputs, targets = problems(seed, samples=2, tokens=1, heads=2, outputs=2)
        if seed % 2:
            layer = layer._replace(value=0 * layer.value, output=30.0**seed * layer.output)
        found = theory.ball_test(KERNELS[name], layer, inputs, targets, average=average)
        share = 0.5 if average else 1.0
        radius, whole, travel = ball_by_loop(name, layer, inputs, targets, share)
        np.testing.assert_allclose(found.radius, radius, rtol=1e-9)
        np.testing.assert_allclose(found.length, min(whole, travel), rtol=1e-9)
        assert found.passes == (found.length < found.radius)
        smaller.append((travel < whole, found.passes))
    # Either bound is the smaller one somewhere, and tests pass and fail.
    assert {bound for bound, _ in smaller} == {passes for _, passes in smaller} == {True, False}


def started(name, *, gain=3.0):
    _, inputs, targets = problems(1, outputs=1)
    layer = theory.silent_start(gain=gain)(jax.random.key(0), 3, 5, 2, 1)
    return layer, inputs, targets, theory.ball_test(KERNELS[name], layer, inputs, targets)


@pytest.mark.parametrize("name", KERNELS)
def test_features_stay_conditioned_in_the_ball(name):
    """Theorem: sigma(B) >= sigma(B_0)/2 at 300 points of the sphere of radius R."""
    layer, inputs, _, found = started(name)
    rng = np.random.default_rng(2)
    moves = rng.normal(size=(300, 2, *layer.query.shape))
    moves *= (
        found.radius / np.linalg.norm(moves.reshape(300, -1), axis=1)[:, None, None, None, None]
    )

    def sigma(move):
        moved = layer._replace(query=layer.query + move[0], key=layer.key + move[1])
        features = theory.attention_features(KERNELS[name], moved, inputs)
        return jnp.linalg.svd(features.reshape(len(features), -1), compute_uv=False)[-1]

    least = np.min(jax.jit(jax.vmap(sigma))(jnp.asarray(moves)))
    assert found.sigma / 2 <= least < found.sigma


def test_gain_and_margin():
    """Closed form: f_0 and R stay as the gain grows, the path shrinks at least like 1/gain."""
    small, large = (started("gaussian", gain=gain)[3] for gain in (1.0, 10.0))
    np.testing.assert_allclose(small.radius, large.radius, rtol=1e-12)
    np.testing.assert_allclose(small.risk, large.risk, rtol=1e-12)
    assert large.margin >= 10 * small.margin * (1 - 1e-12)
    np.testing.assert_allclose(large.pl, 100 * small.pl, rtol=1e-9)


def test_gaussian_radius():
    """Closed form: R = sigma(B_0) / (2 Lambda sqrt(sum |X_i|^4)), for the Gaussian kernel."""
    _, inputs, _, found = started("gaussian")
    slope = np.sqrt(2 * 2) * np.sqrt(2 * 0.5 / np.sqrt(2) / np.e)
    size = np.sqrt(np.sum(np.linalg.norm(np.asarray(inputs), 2, axis=(1, 2)) ** 4))
    np.testing.assert_allclose(found.radius, found.sigma / 2 / slope / size, rtol=1e-9)


def test_no_full_rank_no_ball():
    """Theorem: HD < Nn, or k < c, and mu = 0; W^V alone has no ball to leave."""
    given = (KERNELS["softmax"],)
    few = theory.ball_test(*given, *problems(3, heads=1, dim=3))
    thin = theory.ball_test(*given, *problems(3, outputs=3))
    for found in (few, thin):
        assert (found.passes, found.margin, found.pl) == (False, 0.0, 0.0)
        assert "mu = 0" in found.statement
    alone = theory.ball_test(*given, *problems(3), trained=["value"])
    constant = theory.pl_constant(KERNELS["softmax"], *problems(3)[:2])
    assert alone.passes
    np.testing.assert_allclose(alone.pl, constant, rtol=1e-9)


@pytest.mark.parametrize("trained", [["query"], ["value", "output"]])
def test_refused_settings(trained):
    """Closed form: the theorem holds W^O fixed and trains W^V."""
    given = KERNELS["softmax"], *problems(3)
    with pytest.raises(ValueError, match="^trained must hold value and not output, got"):
        theory.ball_test(*given, trained=trained)
    with pytest.raises(ValueError, match="^kernel must carry its Lipschitz .* got RowKernel"):
        theory.ball_test(nn.gaussian(), *problems(3))


def test_rank_that_is_round_off_proves_nothing():
    """Closed form: identical tokens have features of rank one, whatever an SVD leaves."""
    parts = [jax.random.normal(k, (4, 3, 2)) for k in jax.random.split(jax.random.key(0), 3)]
    layer = theory.AttentionLayer(*parts, jnp.stack([jnp.eye(2)] * 4))
    inputs, targets = jnp.ones((2, 2, 3)), jnp.ones((2, 2, 2))
    for trained in (["value"], ["query", "value"]):
        found = theory.ball_test(KERNELS["softmax"], layer, inputs, targets, trained=trained)
        assert not found.passes
        assert found.pl == 0
