r"""Whole models: embedding, network, readout, and the scales that their training needs.

    f(x; Theta) = readout(network(embedding(x)))

``time_scales`` and ``decay_scales`` turn the network's scaling law into one number per branch of
Theta:

    dTheta/dtau = -time_scales * grad Q,      Q = R + (lambda/2) sum decay_scales |Theta|^2

One trap: each block has its own width, so heads and neurons have time scales of their own.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al., eq. (3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

from meanfield.nn.embed import Embedding, Readout
from meanfield.nn.network import Network
from meanfield.nn.scaling import decay_scale, time_scale


class Theta(NamedTuple):
    """The parameters of a model.

    Attributes:
        embedding: Parameters of the embedding.
        blocks: Particles of each block, leading axes [l, m].
        readout: Parameters of the readout.
    """

    embedding: PyTree
    blocks: tuple[Any, ...]
    readout: PyTree


@dataclass(frozen=True, kw_only=True)
class Model:
    """A map from samples to outputs.

    Attributes:
        embedding: From a sample to tokens.
        network: From tokens to tokens.
        readout: From tokens to outputs.
    """

    embedding: Embedding
    network: Network
    readout: Readout

    def init(self, key: Any, *, width: int | Sequence[int], coupling: str = "independent") -> Theta:
        """Initial parameters; embedding and readout do not depend on the width.

        Args:
            key: Random key.
            width: Particles per half-step: one number, or one per block.
            coupling: Over depth, ``"independent"`` or ``"path"``.

        Raises:
            ValueError: If a width is not a positive integer or the coupling is unknown.
        """
        keys = jax.random.split(key, 3)
        return Theta(
            embedding=self.embedding.init(keys[0]),
            blocks=self.network.init(keys[1], width=width, coupling=coupling),
            readout=self.readout.init(keys[2]),
        )

    def apply(self, theta: Theta, sample: PyTree) -> Float[Array, "..."]:
        """The outputs of one sample.

        Args:
            theta: Parameters.
            sample: What the embedding takes: an image, ids, tokens.

        Raises:
            ValueError: If theta is no :class:`Theta`, or shapes do not fit.
        """
        _check_theta(theta)
        tokens, mask = self.embedding.apply(theta.embedding, sample)
        tokens = self.network.apply(theta.blocks, tokens, mask)
        return self.readout.apply(theta.readout, tokens, mask)

    def partition(self, axis: str) -> Theta:
        """How parameters lie on a mesh: particles along one of its axes, the rest on every device.

        Args:
            axis: Name of the mesh axis.
        """
        whole = PartitionSpec()
        return Theta(whole, (PartitionSpec(None, axis),) * len(self.network.blocks), whole)

    def time_scales(self, theta: Theta) -> Theta:
        """The factor of the gradient for each branch: the law's for particles, 1 for the rest.

        Args:
            theta: Parameters.

        Raises:
            ValueError: If theta is no :class:`Theta`.
        """
        _check_theta(theta)
        law = self.network.scaling
        return Theta(1.0, tuple(time_scale(law, particles) for particles in theta.blocks), 1.0)

    def decay_scales(self, theta: Theta, *, embedding: float = 0.0, readout: float = 0.0) -> Theta:
        """The weight of the squared norm for each branch: the law's for particles.

        Args:
            theta: Parameters.
            embedding: Weight for the embedding; 0 means no decay.
            readout: Weight for the readout; 0 means no decay.

        Raises:
            ValueError: If theta is no :class:`Theta`.
        """
        _check_theta(theta)
        law = self.network.scaling
        blocks = tuple(decay_scale(law, particles) for particles in theta.blocks)
        return Theta(embedding, blocks, readout)


def model(embedding: Embedding, network: Network, readout: Readout, /) -> Model:
    """A model from its three parts.

    Args:
        embedding: From a sample to tokens.
        network: From tokens to tokens.
        readout: From tokens to outputs.

    >>> from meanfield import nn
    >>> net = nn.network((nn.attention(dim=3, head_dim=2), nn.mlp(dim=3)), depth=2)
    >>> regression = model(nn.identity(), net, nn.label_read())
    >>> regression.time_scales(regression.init(jax.random.key(0), width=4)).blocks
    (8.0, 8.0)
    """
    return Model(embedding=embedding, network=network, readout=readout)


def _check_theta(theta: Any) -> None:
    if not isinstance(theta, Theta):
        raise ValueError(f"theta must be a Theta from model.init, got {type(theta).__name__}")
