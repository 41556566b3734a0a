r"""Lipschitz constants of attention kernels: how fast weights move with queries and keys.

With Lambda the constant of one sample and head, of n tokens, at spectral norms |Q| and |K|,

    |dS|_F <= Lambda |(dQ, dK)|_F

    softmax    Lambda = (s/2) sqrt(|Q|^2 + |K|^2)             s the kernel's scale, 1/sqrt(k)
    Gaussian   Lambda = sqrt(2n) sqrt(2 c s / e)              c its bandwidth

The first because diag(p) - p p' has norm at most 1/2 for every p of sum one, the second because
2 c s r exp(-c s r^2) is at most sqrt(2 c s / e) for every distance r.

One trap: that of softmax grows with the weights and that of the Gaussian kernel does not; rows of
the Gaussian kernel that are normalised need another constant, which is not here.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from meanfield.checks import positive

Norms = Float[np.ndarray, "*any"]

Lipschitz = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""Lambda(|Q|, |K|, n, k): from spectral norms of queries and keys, the number of tokens and the
head dimension."""


def softmax_lipschitz(scale: float | None = None) -> Lipschitz:
    """Lambda of the softmax kernel.

    Args:
        scale: The factor of the kernel inside the exponent; 1/sqrt(k) if None.

    Raises:
        ValueError: If the scale is not positive.

    >>> softmax_lipschitz()(np.array([3.0]), np.array([4.0]), 8, 1).tolist()
    [2.5]
    """
    _check(scale)

    def constant(queries: Norms, keys: Norms, tokens: int, head_dim: int) -> Norms:
        return _scale(scale, head_dim) / 2 * np.hypot(queries, keys)

    return constant


def gaussian_lipschitz(bandwidth: float = 0.5, *, scale: float | None = None) -> Lipschitz:
    """Lambda of the Gaussian kernel whose rows are not normalised.

    Args:
        bandwidth: The constant c of the kernel.
        scale: The factor of the kernel inside the exponent; 1/sqrt(k) if None.

    Raises:
        ValueError: If the bandwidth or the scale is not positive.

    >>> gaussian_lipschitz()(np.array([3.0]), np.array([4.0]), 8, 1).round(4).tolist()
    [2.4261]
    """
    positive("bandwidth", bandwidth)
    _check(scale)

    def constant(queries: Norms, keys: Norms, tokens: int, head_dim: int) -> Norms:
        slope = math.sqrt(2 * bandwidth * _scale(scale, head_dim) / math.e)
        return np.full(np.shape(queries), math.sqrt(2 * tokens) * slope)

    return constant


def _check(scale: float | None) -> None:
    if scale is not None:
        positive("scale", scale)


def _scale(scale: float | None, head_dim: int) -> float:
    return head_dim**-0.5 if scale is None else scale
