r"""The two problems of ``weight_decay``: one whose energy is convex in rho, and a Transformer.

    neurons      one layer h(x, w) = w_out exp(-(x w_in + b)^2) on a scalar token, square loss:
                 Q is convex in rho, so a Frank-Wolfe gap bounds Q - Q*, rigorously for w_in and b
    transformer  heads and neurons at several depths, regression in context: a first-order
                 certificate only

In both, theta_1 is what the encoder is linear in (w_out; W_O of a head), theta_2 the rest.

One trap: with depth, Q is not convex, and nothing found here bounds Q - Q*.

References:
    Gao et al. 2024, arXiv 2410.23610 (partial 1-homogeneity); Jaggi 2013 (the gap).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from meanfield import flow, nn, tasks, theory
from meanfield.notation import Risk

SLOPE = math.sqrt(2) * math.exp(-0.5)
"""Of exp(-z^2), at its steepest."""
ON: Any = True
OFF: Any = False
"""Marks of a leaf, in trees whose leaves are arrays elsewhere."""


class Problem(NamedTuple):
    """A model, its data, and what a certificate needs to know of it.

    Attributes:
        name: Its name in the record.
        title: What the report calls it.
        model: The model.
        width: Particles per half-step.
        inputs: Samples.
        risk: R, from theta to a number.
        token_risk: R from the final tokens.
        homogeneous: For every block, True for the leaves that are theta_1.
        convex: Whether Q is convex in rho.
    """

    name: str
    title: str
    model: nn.Model
    width: int
    inputs: jax.Array
    risk: Risk
    token_risk: Partial
    homogeneous: tuple[Any, ...]
    convex: bool

    def energy(self, decay: float) -> Risk:
        """Q at a weight decay."""
        return flow.energy(self.risk, self.model.decay_scales, weight_decay=decay)

    def states(self, blocks: tuple[Any, ...]) -> tuple[theory.States, ...]:
        """Tokens and forces at the particles of every block."""
        network = self.model.network
        means = [block.mean for block in network.blocks]
        return theory.network_states(
            means, self.token_risk, blocks, self.inputs, kappa=network.kappa
        )


def neurons(*, samples: int, width: int, spread: float) -> Problem:
    """A wave with an offset, on equidistant points, fitted by bumps."""
    x = jnp.linspace(-1.5, 1.5, samples)
    block = nn.mlp(dim=1, activation=_bump, measure=nn.inits.gaussian(spread))
    # The token itself passes through, so the network is left with the wave.
    labels = x + jnp.sin(2 * x) + 0.5
    homogeneous = (nn.Neuron(weight_in=OFF, bias=OFF, weight_out=ON),)
    return _problem(
        ("neurons", "one layer of neurons"),
        [block],
        (x[:, None, None], labels),
        homogeneous,
        width=width,
        depth=1,
        kappa=1.0,
    )


def transformer(
    *, samples: int, context: int, dim: int, depth: int, width: int, kappa: float
) -> Problem:
    """Linear regression in context, without noise: predictors of risk 0 on the prompts exist."""
    prompts = tasks.in_context_regression(jax.random.key(0), samples, context=context, dim=dim)
    blocks = [nn.attention(dim=dim + 1, head_dim=2), nn.mlp(dim=dim + 1, activation=jnp.tanh)]
    homogeneous = (
        nn.Head(query=OFF, key=OFF, value=OFF, output=ON),
        nn.Neuron(weight_in=OFF, bias=OFF, weight_out=ON),
    )
    return _problem(
        ("transformer", "a Transformer on in-context regression"),
        blocks,
        (prompts.tokens, prompts.labels),
        homogeneous,
        width=width,
        depth=depth,
        kappa=kappa,
    )


def _problem(
    names: tuple[str, str],
    blocks: list[nn.Block],
    pairs: tuple[jax.Array, jax.Array],
    homogeneous: tuple[Any, ...],
    *,
    width: int,
    depth: int,
    kappa: float,
) -> Problem:
    network = nn.network(blocks, depth=depth, kappa=kappa)
    model = nn.model(nn.identity(), network, nn.label_read())
    return Problem(
        name=names[0],
        title=names[1],
        model=model,
        width=width,
        inputs=pairs[0],
        risk=flow.empirical_risk(model.apply, *pairs),
        token_risk=Partial(_token_risk, pairs[1]),
        homogeneous=homogeneous,
        convex=len(blocks) * depth == 1,
    )


def _bump(z: jax.Array) -> jax.Array:
    return jnp.exp(-(z**2))


def _token_risk(labels: jax.Array, final: jax.Array) -> jax.Array:
    return jnp.mean((final[:, -1, -1] - labels) ** 2) / 2
