import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, LIPSCHITZ, problems

from meanfield import theory

QKV = ("query", "key", "value")


@pytest.mark.parametrize("name", KERNELS)
def test_lipschitz_constants(name):
    """Theorem: no derivative of the weights exceeds Lambda, at 500 queries and keys."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-1.5, 1.0, size=(500, 1, 1))
    pairs = [jnp.asarray(sizes * rng.normal(size=(500, 4, 3))) for _ in range(2)]

    def norm(queries, keys):
        moved = jax.jacrev(KERNELS[name], argnums=(0, 1))(queries, keys)
        return jnp.linalg.norm(jnp.concatenate([m.reshape(16, 12) for m in moved], axis=1), 2)

    found = np.asarray(jax.jit(jax.vmap(norm))(*pairs))
    spectral = [np.linalg.norm(np.asarray(each), 2, axis=(1, 2)) for each in pairs]
    bound = LIPSCHITZ[name](*spectral, 4, 3)
    assert np.all(found <= bound)
    assert np.max(found / bound) > 0.3


def started(name, *, gain=3.0, samples=2, tokens=2, average=False):
    _, inputs, targets = problems(1, samples=samples, tokens=tokens, outputs=1)
    layer = theory.silent_start(gain=gain)(jax.random.key(0), 3, 5, 2, 1)
    found = theory.ball_test(
        KERNELS[name], LIPSCHITZ[name], layer, inputs, targets, average=average
    )
    return layer, inputs, targets, found


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


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("average", [False, True])
def test_what_passes_stays(name, average):
    """Theorem: the run's path is shorter than promised, sigma(B) and the rate are kept."""
    _, inputs, targets, weak = started(name, average=average)
    gain = 3.0 * 1.5 / weak.margin
    layer, _, _, found = started(name, gain=gain, average=average)
    kernel = KERNELS[name]
    assert found.passes
    assert found.margin > 1
    beta = theory.smoothness(kernel, layer, inputs, targets, trained=QKV, average=average)
    step = float(0.5 / beta)
    run = theory.layer_descent(
        kernel, layer, inputs, targets, step=step, steps=400, trained=QKV, average=average
    )
    check = theory.rate_check(run, step=step)
    assert (check.refused, check.violations) == (0, 0)
    assert float(run.path[-1]) < found.length < found.radius
    assert np.min(run.sigma) >= found.sigma / 2
    np.testing.assert_allclose(run.risks[0], found.risk, rtol=1e-9)
    bound = found.risk * (1 - step * found.pl) ** np.arange(401)
    assert np.all(run.risks <= bound * (1 + 1e-12))
    assert np.all(run.pl >= found.pl)


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
    given = KERNELS["softmax"], LIPSCHITZ["softmax"]
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
    given = KERNELS["softmax"], LIPSCHITZ["softmax"], *problems(3)
    with pytest.raises(ValueError, match="^trained must hold value and not output, got"):
        theory.ball_test(*given, trained=trained)
    with pytest.raises(ValueError, match="^bandwidth must be a finite number > 0, got 0"):
        theory.gaussian_lipschitz(0.0)
    with pytest.raises(ValueError, match="^scale must be a finite number > 0, got -1"):
        theory.softmax_lipschitz(-1.0)


def test_rank_that_is_round_off_proves_nothing():
    """Closed form: identical tokens have features of rank one, whatever an SVD leaves."""
    parts = [jax.random.normal(k, (4, 3, 2)) for k in jax.random.split(jax.random.key(0), 3)]
    layer = theory.AttentionLayer(*parts, jnp.stack([jnp.eye(2)] * 4))
    inputs, targets = jnp.ones((2, 2, 3)), jnp.ones((2, 2, 2))
    for trained in (["value"], ["query", "value"]):
        found = theory.ball_test(
            KERNELS["softmax"], LIPSCHITZ["softmax"], layer, inputs, targets, trained=trained
        )
        assert not found.passes
        assert found.pl == 0
