import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import flow, nn, rates
from meanfield.nn.scaling import LAWS, decay_scale, time_scale
from meanfield.tree import squared_norm

WIDTHS = np.array([4, 8, 16, 32, 64])
DEPTH, TOKENS, SAMPLES, SEEDS, STEP = 2, 3, 4, 24, 0.05
MEAN_READ = nn.Readout(lambda key: (), lambda params, tokens, mask: jnp.mean(tokens[-1]))


def drawn(width, dim, *, shift=0.0, spread=1.0, into=1.0):
    """Particles of both blocks, data and targets of every seed."""
    rng = np.random.default_rng(width)

    def normal(*shape, size=1.0):
        return jnp.asarray(size * (shift + spread * rng.normal(size=(SEEDS, DEPTH, width, *shape))))

    heads = nn.Head(*(normal(dim, 2, size=into) for _ in range(3)), normal(2, dim))
    neurons = nn.Neuron(normal(dim, size=into), normal(), normal(dim))
    # Residuals of one size at all widths: targets far from the outputs; inputs the same if can be.
    data, targets = np.random.default_rng(0), jnp.asarray(np.resize([2.0, -2.0], SEEDS))
    return (heads, neurons), jnp.asarray(data.normal(size=(SEEDS, SAMPLES, TOKENS, dim))), targets


def updates(law, width, *, dim=4, kappa=1.0, decays=(1.0,), **law_of_entries):
    """RMS over seeds of a particle's velocity and of the tokens' change by one Euler step."""
    blocks = (nn.attention(dim=dim, head_dim=2), nn.mlp(dim=dim, activation=jnp.tanh))
    network = nn.network(blocks, depth=DEPTH, scaling=law, kappa=kappa)
    model = nn.model(nn.identity(), network, MEAN_READ)

    def tokens(blocks, inputs):
        return jax.vmap(network.apply, in_axes=(None, 0))(blocks, inputs)

    def one(blocks, inputs, target, weight_decay):
        def risk(theta):
            return jnp.mean((jnp.mean(tokens(theta.blocks, inputs)[:, -1], axis=1) - target) ** 2)

        theta = nn.Theta((), blocks, ())
        energy = flow.energy(risk, model.decay_scales, weight_decay=weight_decay)
        velocity = flow.gradient_field(energy, model.time_scales)(0.0, theta).blocks
        both = jax.tree.map(lambda x, v: jnp.stack([x, x + STEP * v]), blocks, velocity)
        before, after = jax.lax.map(lambda blocks: tokens(blocks, inputs), both)
        return squared_norm(velocity) / (DEPTH * width), jnp.mean((after - before) ** 2)

    every = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None)))
    seeds = drawn(width, dim, **law_of_entries)
    return [np.sqrt(np.mean(every(*seeds, decay), axis=1)) for decay in decays]


def fitted(widths, rows):
    """Slopes against width, of particles' velocities and of tokens' changes."""
    return [rates.log_log_slope(widths, column).slope for column in rows.T]


def slopes(law, *, dim=lambda width: 4, widths=WIDTHS, **options):
    """The slopes of :func:`fitted`, per weight decay."""
    found = np.array([updates(law, width, dim=dim(width), **options) for width in widths.tolist()])
    return [fitted(widths, rows) for rows in np.moveaxis(found, 1, 0)]


@pytest.mark.parametrize("law", LAWS)
def test_drift_of_the_decay(law):
    """Closed form: time x decay = 1, so a particle feels -lambda theta at every depth and width."""
    law = LAWS[law]()
    for depth, width in [(1, 1), (6, 16), (7, 3)]:
        assert law.time(depth, width) * law.decay(depth, width) == pytest.approx(1.0, rel=1e-15)
        tree = np.zeros((depth, width, 3))
        assert time_scale(law, tree) == law.time(depth, width)
        assert decay_scale(law, tree) == law.decay(depth, width)


def test_time_scales_belong_to_the_forward_factors():
    """Theorem: in mean field the sum's factor times the time scale is 1; by name, all four laws."""
    law = nn.mean_field()
    for depth, width in [(1, 1), (6, 16)]:
        product = law.width_factor(width) * law.depth_factor(depth) * law.time(depth, width)
        assert product == pytest.approx(1.0, rel=1e-15)
    assert {name: law().name for name, law in LAWS.items()} == {name: name for name in LAWS}


def test_updates_in_mean_field():
    """Order: particles and tokens move alike at all widths, decay included; slopes 0 +- 0.1.

    A decay without its factor 1/(L M) is one that is L M times too strong; it leaves the band.
    """
    found = []
    for width in WIDTHS.tolist():
        decays = (1.0, 1.0 * DEPTH * width)
        found.append(updates(nn.mean_field(), width, shift=0.3, spread=0.3, decays=decays))
    right, wrong = (fitted(WIDTHS, rows) for rows in np.moveaxis(np.array(found), 1, 0))
    assert right == pytest.approx([0.0, 0.0], abs=0.1)
    assert min(wrong) > 0.5


def test_updates_in_complete_p():
    """Order: with d in proportion to the width, particles and tokens move alike; 0 +- 0.1."""
    free, decayed = slopes(
        nn.complete_p(), dim=lambda width: width, widths=2 * WIDTHS, decays=(0.0, 1.0)
    )
    assert free == pytest.approx([0.0, 0.0], abs=0.1)
    # The norm of a particle, and with it the drift of the decay, is of size sqrt(d).
    assert decayed == pytest.approx([0.5, 0.0], abs=0.1)


def test_complete_p_needs_its_token_factor():
    """Order: with the fan-in in the particles and not in the map, tokens move by sqrt(d) more."""
    doctored = dataclasses.replace(nn.complete_p(), token_factor=lambda dim: 1.0)
    narrow, wide = (
        updates(doctored, width, dim=width, into=width**-0.5, decays=(0.0,))[0][1]
        for width in (4, 64)
    )
    assert wide / narrow > 16**0.25


def test_ntk_freezes():
    """Theorem: in the tangent regime a particle moves by 1/sqrt(M); slope -1/2 +- 0.1."""
    (found,) = slopes(nn.ntk(), widths=WIDTHS[::2], decays=(0.0,), kappa=0.1, into=0.5)
    assert found[0] == pytest.approx(-0.5, abs=0.1)
