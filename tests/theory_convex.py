"""A convex mean-field problem with a known optimum: a constant fitted by Gaussian neurons.

One layer of neurons h(x, w) = w_out exp(-(x w_in + b)^2) on one scalar token, risk
E (1/2) (int h drho - c)^2, decay lambda. Features are at most 1, and equal 1 everywhere only for
w_in = b = 0, so Q >= (1/2) (m - c)^2 + (lambda/2) m^2 with m the root mean square of int h drho,
and Q* = lambda c^2 / (2 (1 + lambda)), attained by the Dirac mass at (0, 0, c / (1 + lambda)).
"""

import jax.numpy as jnp
import numpy as np

from meanfield import flow, nn, theory

LEVEL, WEIGHT_DECAY = 1.5, 0.4
SLOPE = np.sqrt(2) * np.exp(-0.5)  # of exp(-z^2), at its steepest
OPTIMUM = WEIGHT_DECAY * LEVEL**2 / (2 * (1 + WEIGHT_DECAY))
X = jnp.asarray(np.random.default_rng(5).normal(size=8))
INPUTS = X[:, None, None]
BLOCK = nn.mlp(dim=1, activation=lambda z: jnp.exp(-(z**2)))
HOMOGENEOUS = nn.Neuron(weight_in=False, bias=False, weight_out=True)
MODEL = nn.model(nn.identity(), nn.network([BLOCK], depth=1), nn.label_read())
RISK = flow.empirical_risk(MODEL.apply, INPUTS, X + LEVEL)
ENERGY = flow.energy(RISK, MODEL.decay_scales, weight_decay=WEIGHT_DECAY)


def start(width=20):
    rng = np.random.default_rng(6)
    shapes = ((width, 1), (width,), (width, 1))
    return nn.Neuron(*(jnp.asarray(rng.normal(size=(1, *shape))) for shape in shapes))


def states(neurons):
    def risk(final):
        return jnp.mean((final[:, 0, 0] - X - LEVEL) ** 2) / 2

    return theory.network_states([BLOCK.mean], risk, (neurons,), INPUTS)[0]


def gap(neurons, *, rigorous=True, **options):
    at = states(neurons)
    if rigorous:
        bound, lipschitz = theory.neuron_bounds(at, slope=SLOPE)
        options = {"bound": bound, "lipschitz": lipschitz, **options}
    return theory.frank_wolfe_gap(
        BLOCK.particle,
        neurons,
        at,
        homogeneous=HOMOGENEOUS,
        weight_decay=WEIGHT_DECAY,
        **options,
    )
