r"""Curvature at the end of stage 2: extremes, spectral density, and blocks of layers and heads.

    whole     extreme eigenvalues of H, its spectral density, its trace n E lambda
    layers    largest eigenvalue of P H P, P the particles of one layer: heads and neurons
    heads     the same of one head: its W_Q, W_K, W_V and W_O

all by Lanczos with one program, for a block is the whole with the other parameters held.

One trap: a block's largest eigenvalue is at most the whole's, and blocks do not add up to it: what
moves together curves more.
"""

from typing import Any

import jax
import numpy as np

from meanfield import landscape


def curvature(config: Any, risk: Any, end: Any, seed: int) -> dict[str, Any]:
    """Extremes, density, trace and blocks of one seed.

    Args:
        config: Steps, probes, tolerance and seed.
        risk: The risk.
        end: Where: parameters of one seed.
        seed: Number of the seed, from 0.
    """
    key = jax.random.fold_in(jax.random.key(config.direction_seed + 1), seed)
    whole = jax.tree.map(lambda leaf: np.ones(leaf.shape), end)

    def extremes(within: Any) -> landscape.Extremes:
        return landscape.hessian_extremes(
            key, risk, end, steps=config.lanczos, tolerance=config.tolerance, within=within
        )

    ends = extremes(whole)
    layers = [extremes(marks(end, layer)) for layer in range(config.depth)]
    heads = [
        extremes(marks(end, layer, head))
        for layer in range(config.depth)
        for head in range(config.heads)
    ]
    density = landscape.spectral_density(
        key, risk, end, probes=config.probes, steps=config.lanczos, within=whole
    )
    mean = landscape.spectral_moments(density, number=1)
    number = sum(leaf.size for leaf in jax.tree.leaves(whole))
    return {
        "largest": ends.largest,
        "smallest": ends.smallest,
        "residuals": ends.residuals,
        "converged": ends.converged,
        "trace": number * mean.mean[0],
        "trace_error": number * mean.standard_error[0],
        "nodes": density.nodes,
        "weights": density.weights,
        "parameters": number,
        "layers": np.array([float(one.largest) for one in layers]),
        "heads": np.array([float(one.largest) for one in heads]).reshape(config.depth, -1),
        "blocks_converged": np.array([bool(one.converged) for one in (*layers, *heads)]),
    }


def marks(theta: Any, layer: int, head: int | None = None) -> Any:
    """Marks of 1 on the particles of a layer, or on one head of it, and of 0 elsewhere.

    Args:
        theta: The parameters.
        layer: The layer, from 0.
        head: The head, from 0; all heads and neurons of the layer if None.
    """
    found = jax.tree.map(lambda leaf: np.zeros(leaf.shape), theta)
    blocks = found.blocks if head is None else found.blocks[:1]
    for leaf in jax.tree.leaves(blocks):
        leaf[(layer,) if head is None else (layer, head)] = 1
    return found
