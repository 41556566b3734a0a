"""The problem on which limits are measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from experiments.global_convergence import in_context

PROBLEM = in_context.problem(
    prompts=3, probes=4, context=3, weight_decay=0.0, kappa=0.5, gain=0.5, mean=0.3
)


@pytest.mark.parametrize("coupling", ["independent", "path"])
def test_heads_are_draws_from_their_law(coupling):
    """Theorem: mean 0.3 and variance gain^2 / fan-in, to 4 s.e.; layers are equal for paths."""
    (heads,) = in_context.draw_at_once(PROBLEM, coupling)(jax.random.key(0), 20_000, 2).blocks
    for leaf, fan_in in zip(heads, (3, 3, 3, 2), strict=True):
        assert leaf.shape[:2] == (2, 20_000)
        std = 0.5 * fan_in**-0.5
        errors = np.array([leaf.mean(1) - 0.3, leaf.std(1) - std])
        assert np.abs(errors).max() < 4 * std / np.sqrt(20_000)
        assert bool((leaf[0] == leaf[1]).all()) == (coupling == "path")
    values = np.concatenate([np.ravel(leaf[0]) for leaf in heads])
    assert np.unique(values).size == values.size


def test_the_token_risk_is_the_risk():
    """Independent way: the risk of the model, from the last tokens of the same network."""
    theta = in_context.draw_at_once(PROBLEM, "independent")(jax.random.key(1), 4, 2)
    apply = jax.vmap(PROBLEM.model.network.apply, in_axes=(None, 0))
    found = PROBLEM.token_risk(apply(theta.blocks, PROBLEM.tokens))
    np.testing.assert_allclose(found, PROBLEM.observe(theta).risk, rtol=round_off())


def test_repeated_heads_are_the_same_network():
    """Invariance: a network is the measure of its heads, and so is its training."""
    keys = jax.random.split(jax.random.key(2), 3)
    thetas = jax.vmap(lambda key: in_context.draw_at_once(PROBLEM, "path")(key, 2, 2))(keys)
    flows = in_context.midpoint(PROBLEM, np.array([0.0, 0.2, 0.4]), steps=2)
    own, wide = flows(thetas), flows(in_context.repeated(thetas, 6))
    assert own.predictions.shape == (3, 3, 4)
    np.testing.assert_allclose(own.predictions, wide.predictions, rtol=1e-10)
    np.testing.assert_allclose(own.risk, wide.risk, rtol=1e-10)
    assert jnp.all(own.risk[-1] < own.risk[0])
