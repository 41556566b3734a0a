import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import neuron_loop, particle
from scipy.stats import norm

from meanfield import nn

TOKENS, DIM, WIDTH = 4, 3, 5


def tokens_and_neurons(dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (WIDTH, DIM), (WIDTH,), (WIDTH, DIM)
    neurons = nn.Neuron(*(jnp.asarray(rng.normal(size=s), dtype) for s in shapes))
    return jnp.asarray(rng.normal(size=(TOKENS, DIM)), dtype), neurons


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_mean_against_loop(activation, dtype):
    """Numpy loop: the average over neurons, token by token; one particle likewise."""
    tokens, neurons = tokens_and_neurons(dtype)
    function = {"tanh": np.tanh, "relu": lambda x: max(x, 0.0)}[activation]
    block = nn.mlp(dim=DIM, activation={"tanh": jnp.tanh, "relu": jax.nn.relu}[activation])
    exact = np.asarray(tokens, float)
    as_float = jax.tree.map(lambda leaf: np.asarray(leaf, float), neurons)
    loops = [neuron_loop(exact, particle(as_float, j), function) for j in range(WIDTH)]
    tolerance = round_off(dtype)
    mean = block.mean(tokens, neurons, None)
    assert mean.dtype == dtype
    np.testing.assert_allclose(mean, np.mean(loops, axis=0), rtol=tolerance, atol=tolerance)
    one = block.particle(tokens, jax.tree.map(lambda leaf: leaf[2], neurons), None)
    np.testing.assert_allclose(one, loops[2], rtol=tolerance, atol=tolerance)


def test_default_activation():
    """Closed form: gelu(x) = x Phi(x), in the approximation by tanh to 5e-4."""
    block = nn.mlp(dim=1)
    neuron = nn.Neuron(jnp.ones(1), jnp.zeros(()), jnp.ones(1))
    x = np.linspace(-3, 3, 13)[:, None]
    np.testing.assert_allclose(
        block.particle(jnp.asarray(x), neuron, None), x * norm.cdf(x), atol=5e-4
    )


def test_token_by_token():
    """Invariance: tokens do not mix, and the mask of keys means nothing here."""
    tokens, neurons = tokens_and_neurons()
    block = nn.mlp(dim=DIM)
    whole = block.mean(tokens, neurons, None)
    np.testing.assert_array_equal(block.mean(tokens, neurons, jnp.zeros(TOKENS, bool)), whole)
    alone = [block.mean(tokens[a : a + 1], neurons, None)[0] for a in range(TOKENS)]
    np.testing.assert_allclose(jnp.stack(alone), whole, rtol=round_off())


def test_partially_homogeneous():
    """Theorem: 1-homogeneous in the output weights, which global convergence needs."""
    tokens, neurons = tokens_and_neurons()
    block = nn.mlp(dim=DIM)
    tripled = neurons._replace(weight_out=3 * neurons.weight_out)
    expected = 3 * block.mean(tokens, neurons, None)
    np.testing.assert_allclose(block.mean(tokens, tripled, None), expected, rtol=round_off())


def test_draw():
    """Closed form: shapes, double precision, and the measure asked for."""
    neuron = nn.mlp(dim=DIM, measure=nn.inits.gaussian(0.0)).draw(jax.random.key(0))
    assert [leaf.shape for leaf in neuron] == [(3,), (), (3,)]
    assert all(leaf.dtype == np.float64 and not leaf.any() for leaf in neuron)
    assert nn.mlp(dim=DIM).name == "neurons"


def test_refused(monkeypatch):
    """Closed form: a dimension below 1, and tokens of another dimension."""
    with pytest.raises(ValueError, match="^dim must be an integer >= 1, got 0"):
        nn.mlp(dim=0)
    module = inspect.getmodule(inspect.unwrap(nn.mlp))
    monkeypatch.setattr(module, "check_tokens", inspect.unwrap(module.check_tokens))
    _, neurons = tokens_and_neurons()
    with pytest.raises(ValueError, match=r"dimension 3, got tokens of shape \(4, 7\)"):
        nn.mlp(dim=DIM).mean(jnp.ones((TOKENS, 7)), neurons, None)
