"""A small Transformer with its data, shared by the tests of the theory room."""

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import flow, nn

DEPTH, HEADS, NEURONS, DIM, TOKENS, SAMPLES = 3, 4, 6, 3, 4, 5
KAPPA = (0.7, 1.3)
BLOCKS = (nn.attention(dim=DIM, head_dim=2), nn.mlp(dim=DIM, activation=jnp.tanh))
MEANS = tuple(block.mean for block in BLOCKS)
MODEL = nn.model(
    nn.identity(), nn.network(BLOCKS, depth=DEPTH, kappa=KAPPA), nn.class_read(dim=DIM, classes=3)
)
RNG = np.random.default_rng(7)
INPUTS = jnp.asarray(RNG.normal(size=(SAMPLES, TOKENS, DIM)))
LABELS = jnp.asarray(RNG.integers(0, 3, size=SAMPLES))
READOUT = {"weight": jnp.asarray(RNG.normal(size=(DIM, 3))), "bias": jnp.zeros(3)}


def particles(seed, depth=DEPTH, widths=(HEADS, NEURONS), mean=0.3):
    """Particles with a mean, so that the drift does not vanish."""
    rng = np.random.default_rng(seed)

    def normal(width, *shape):
        return jnp.asarray(mean + 0.5 * rng.normal(size=(depth, width, *shape)))

    into, back = (DIM, 2), (2, DIM)
    heads = nn.Head(*(normal(widths[0], *shape) for shape in (into, into, into, back)))
    return heads, nn.Neuron(*(normal(widths[1], *shape) for shape in ((DIM,), (), (DIM,))))


def energy_of(model, weight_decay, blocks):
    """Energy of the blocks' particles, the readout held fixed."""
    risk = flow.empirical_risk(model.apply, INPUTS, LABELS, loss="cross_entropy")
    energy = flow.energy(risk, model.decay_scales, weight_decay=weight_decay)
    return energy(nn.Theta((), blocks, READOUT))


def token_risk(final):
    """The same risk, from the final tokens."""
    read = jax.vmap(MODEL.readout.apply, in_axes=(None, 0, None))(READOUT, final, None)
    return jnp.mean(jax.vmap(flow.cross_entropy)(read, LABELS))


def energy_with(mass, layer, probes, blocks, weight_decay):
    """Q of rho + mass * delta at one layer, for probes of every block: weights by hand."""
    tokens, decay = INPUTS, 0.0
    layers = zip(*(unstacked(tree) for tree in (*blocks, *probes)), strict=True)
    for at, (heads, neurons, *added) in enumerate(layers):
        extra = mass if at == layer else 0.0
        for block, own, probe, kappa in zip(BLOCKS, (heads, neurons), added, KAPPA, strict=True):
            mean = jax.vmap(block.mean, in_axes=(0, None, None))
            update = mean(tokens, own, None) + extra * mean(tokens, probe, None)
            tokens = tokens + kappa / DEPTH * update
            decay += sum(jnp.sum(leaf**2) for leaf in own) / len(own[0]) / DEPTH
            decay += extra * sum(jnp.sum(leaf**2) for leaf in probe) / DEPTH
    return token_risk(tokens) + weight_decay / 2 * decay


def unstacked(tree):
    return [jax.tree.map(lambda leaf, at=at: leaf[at], tree) for at in range(DEPTH)]
