r"""Attention kernels with their Lipschitz constants: how fast weights move with queries and keys.

    softmax    S_ab = exp(s q_a . k_b) / sum_b' exp(s q_a . k_b')
    Gaussian   S_ab = exp(-c s |q_a - k_b|^2)                 rows not normalised

With Lambda the constant of one sample and head, of n tokens, at spectral norms |Q| and |K|,

    |dS|_F <= Lambda |(dQ, dK)|_F

    softmax    Lambda = (s/2) sqrt(|Q|^2 + |K|^2)             s the kernel's scale, 1/sqrt(k)
    Gaussian   Lambda = sqrt(2n) sqrt(2 c s / e)              c its bandwidth

The first because diag(p) - p p' has norm at most 1/2 for every p of sum one, the second because
2 c s r exp(-c s r^2) is at most sqrt(2 c s / e) for every distance r. Kernel and constant are one
value, so that they cannot disagree.

One trap: that of softmax grows with the weights and that of the Gaussian kernel does not; rows of
the Gaussian kernel that are normalised need another constant, which is not here.

References:
    Song et al. 2024, arXiv 2411.07538 (the two kernels); the constants are our own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meanfield.checks import positive
from meanfield.notation import Weights
from meanfield.theory.attention_layer import Kernel

Norms = Float[np.ndarray, "*any"]

Lipschitz = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""Lambda(|Q|, |K|, n, k): from spectral norms of queries and keys, the number of tokens and the
head dimension."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftmaxKernel:
    """The softmax kernel, a function of queries and keys that knows its Lipschitz constant.

    Raises:
        ValueError: If the scale is not positive.

    >>> SoftmaxKernel()(jnp.zeros((2, 1)), jnp.zeros((2, 1))).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    scale: float | None = None
    """Factor inside the exponent; 1/sqrt(k) if None."""

    def __post_init__(self) -> None:
        """Refuses a scale that is none."""
        _check(self.scale)

    def __call__(self, queries: Float[Array, "n k"], keys: Float[Array, "n k"]) -> Weights:
        """The weights of one sample and head."""
        return jax.nn.softmax(_scale(self.scale, queries.shape[1]) * (queries @ keys.T), axis=-1)

    def lipschitz(self, queries: Norms, keys: Norms, tokens: int, head_dim: int) -> Norms:
        """The constant Lambda.

        Args:
            queries: Spectral norms |Q|.
            keys: Spectral norms |K|.
            tokens: n.
            head_dim: k.

        >>> SoftmaxKernel().lipschitz(np.array([3.0]), np.array([4.0]), 8, 1).tolist()
        [2.5]
        """
        return _scale(self.scale, head_dim) / 2 * np.hypot(queries, keys)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianKernel:
    """The Gaussian kernel, rows not normalised, that knows its Lipschitz constant.

    Raises:
        ValueError: If the bandwidth or the scale is not positive.

    >>> round(float(GaussianKernel()(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0))[0, 0]), 4)
    0.1353
    """

    bandwidth: float = 0.5
    """The constant c before the squared distance."""
    scale: float | None = None
    """Factor inside the exponent; 1/sqrt(k) if None."""

    def __post_init__(self) -> None:
        """Refuses what no kernel has."""
        positive("bandwidth", self.bandwidth)
        _check(self.scale)

    def __call__(self, queries: Float[Array, "n k"], keys: Float[Array, "n k"]) -> Weights:
        """The weights of one sample and head."""
        gaps = jax.vmap(lambda query: jax.vmap(lambda key: jnp.sum((query - key) ** 2))(keys))
        return jnp.exp(-self.bandwidth * _scale(self.scale, queries.shape[1]) * gaps(queries))

    def lipschitz(self, queries: Norms, keys: Norms, tokens: int, head_dim: int) -> Norms:
        """The constant Lambda, the same for all queries and keys.

        Args:
            queries: Spectral norms |Q|.
            keys: Spectral norms |K|.
            tokens: n.
            head_dim: k.

        >>> GaussianKernel().lipschitz(np.array([3.0]), np.array([4.0]), 8, 1).round(4).tolist()
        [2.4261]
        """
        slope = math.sqrt(2 * self.bandwidth * _scale(self.scale, head_dim) / math.e)
        return np.full(np.shape(queries + keys), math.sqrt(2 * tokens) * slope)


def lipschitz_of(kernel: Kernel, /) -> Lipschitz:
    """The constant Lambda that a kernel carries.

    Args:
        kernel: :class:`SoftmaxKernel`, :class:`GaussianKernel`, or any kernel with a method of the
            same kind.

    Raises:
        ValueError: If it carries none.

    >>> lipschitz_of(GaussianKernel(scale=1.0))(np.ones(1), np.ones(1), 1, 1).round(4).tolist()
    [0.8578]
    """
    found: Any = getattr(kernel, "lipschitz", None)
    if found is None:
        raise ValueError(
            f"kernel must carry its Lipschitz constant, got {kernel!r}: take SoftmaxKernel or "
            "GaussianKernel of meanfield.theory, or one with a method lipschitz(|Q|, |K|, n, k)"
        )
    return found


def _check(scale: float | None) -> None:
    if scale is not None:
        positive("scale", scale)


def _scale(scale: float | None, head_dim: int) -> float:
    return head_dim**-0.5 if scale is None else scale
