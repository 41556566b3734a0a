r"""Scaling laws: forward factors, time scales and decay weights that belong together.

A half-step of width M in a network of depth L is

    T  <-  T + kappa * depth_factor(L) * width_factor(M) * sum_j f(token_factor(d) T, theta_j)

and trains by  dtheta/dtau = -time(L, M) * grad Q,  Q = R + (lambda/2) decay(L, M) sum |theta|^2:

    =============  ============  ============  ============  ==========  ===========
    law            width_factor  depth_factor  token_factor  time        decay
    =============  ============  ============  ============  ==========  ===========
    mean_field     1/M           1/L           1             L M         1/(L M)
    complete_p     1/sqrt(M)     1/L           1/sqrt(d)     L M         1/(L M)
    ntk            1/sqrt(M)     1/sqrt(L)     1             1           1
    standard       1             1             1             1           1
    =============  ============  ============  ============  ==========  ===========

In each law ``time * decay`` = 1: a particle feels the drift ``-lambda theta`` whatever the width.

One trap: the pair (factor, time) is one choice. Mean-field factors with time scale 1 freeze as
the width grows, and a mismatched decay is seen by no check of the forward map.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al., eq. (3) (mean_field).
    Dey et al. 2025, CompleteP, arXiv 2505.01618 (complete_p).
    Jacot et al. 2018, arXiv 1806.07572 (ntk).
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import PyTree

from meanfield.tree import leading_axis


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """One scaling law: what multiplies the forward map, the gradient and the decay.

    Attributes:
        name: Name of the law.
        width_factor: From the width M, the factor of a sum over particles.
        depth_factor: From the depth L, the factor of a half-step.
        time: From (L, M), the factor of the gradient.
        decay: From (L, M), the weight of a particle's squared norm in the energy.
        token_factor: From the dimension d, the factor of the tokens that a particle reads.
    """

    name: str
    width_factor: Callable[[int], float]
    depth_factor: Callable[[int], float]
    time: Callable[[int, int], float]
    decay: Callable[[int, int], float]
    token_factor: Callable[[int], float] = lambda dim: 1.0


def mean_field() -> Scaling:
    """The mean-field law: averages over particles, depth step 1/L, time scale L M.

    References:
        Gao et al. 2024, arXiv 2410.23610; Ding et al., eq. (3).

    >>> mean_field().time(6, 16)
    96.0
    """
    return Scaling(
        name="mean_field",
        width_factor=lambda width: 1 / width,
        depth_factor=lambda depth: 1 / depth,
        time=lambda depth, width: float(depth * width),
        decay=lambda depth, width: 1 / (depth * width),
    )


def complete_p() -> Scaling:
    """The maximal-update law (muP) with depth step 1/L.

    It is for token dimensions d that grow in proportion to the width. The particles keep entries
    of size 1 (``inits.gaussian()``, not ``scaled()``): the fan-ins stand in the map, 1/sqrt(d)
    before the tokens that a particle reads and 1/sqrt(M) before the sum over particles. In the time
    scale L M particles then move by O(1) and outputs change by O(1). A readout needs the factor
    1/d; embedding and readout are no particles, and need a time scale of d if they train. At fixed
    d the maximal-update law *is* :func:`mean_field`.

    References:
        Dey et al. 2025, CompleteP, arXiv 2505.01618; Yang and Hu 2021, arXiv 2011.14522.

    >>> complete_p().width_factor(16)
    0.25
    """
    return Scaling(
        name="complete_p",
        width_factor=lambda width: width**-0.5,
        depth_factor=lambda depth: 1 / depth,
        time=lambda depth, width: float(depth * width),
        decay=lambda depth, width: 1 / (depth * width),
        # Without it W_Q, W_K, W_V and w_in would move too far: outputs change by sqrt(d) and more.
        token_factor=lambda dim: dim**-0.5,
    )


def ntk() -> Scaling:
    """The neural-tangent law: 1/sqrt(M) and 1/sqrt(L), time scale 1; particles freeze as M grows.

    References:
        Jacot et al. 2018, arXiv 1806.07572.

    >>> ntk().width_factor(4)
    0.5
    """
    return Scaling(
        name="ntk",
        width_factor=lambda width: width**-0.5,
        depth_factor=lambda depth: depth**-0.5,
        time=lambda depth, width: 1.0,
        decay=lambda depth, width: 1.0,
    )


def standard() -> Scaling:
    """The standard parametrisation: a plain sum over heads and layers, time scale 1.

    >>> standard().width_factor(16)
    1.0
    """
    return Scaling(
        name="standard",
        width_factor=lambda width: 1.0,
        depth_factor=lambda depth: 1.0,
        time=lambda depth, width: 1.0,
        decay=lambda depth, width: 1.0,
    )


LAWS: dict[str, Callable[[], Scaling]] = {
    law.__name__: law for law in (mean_field, complete_p, ntk, standard)
}
"""The laws by name, for command lines."""


def time_scale(scaling: Scaling, particles: PyTree) -> float:
    """The factor of the gradient of one block's particles.

    Args:
        scaling: The law.
        particles: The block's particles, leading axes [l, m].

    >>> import numpy as np
    >>> time_scale(mean_field(), np.zeros((6, 16, 3)))
    96.0
    """
    return scaling.time(leading_axis(particles), leading_axis(particles, 1))


def decay_scale(scaling: Scaling, particles: PyTree) -> float:
    """The weight of a particle's squared norm in the energy, for one block.

    Args:
        scaling: The law.
        particles: The block's particles, leading axes [l, m].

    >>> import numpy as np
    >>> decay_scale(mean_field(), np.zeros((2, 4, 3)))
    0.125
    """
    return scaling.decay(leading_axis(particles), leading_axis(particles, 1))
