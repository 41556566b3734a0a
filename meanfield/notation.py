"""Axis letters, type aliases and the symbols of the two papers.

Axis letters, used in shape strings and ``einsum`` only:

    b batch   n tokens   d token dimension   k head dimension   m width   l depth   t times   c
    outputs

Symbols, and the words the code uses for them:

    ================  =====================================  =================================
    paper             code                                   meaning
    ================  =====================================  =================================
    T in R^{n x d}    tokens                                 tokens of one sample
    L, 1/L            depth, Scaling.depth_factor            number of layers, depth step
    M                 width                                  particles per half-step
    theta             Head(query, key, value, output)        one attention head
    w                 Neuron(weight_in, bias, weight_out)    one feed-forward neuron
    rho_t             leading axes [l, m, ...]               law of the particles at depth t
    kappa             kappa                                  constant before each half-step
    lambda            weight_decay                           constant of the decay
    R, Q              risk, energy                           data term; risk + decay
    tau               time, ts                               training time of the flow
    L M               Scaling.time                           time scale of the flow
    ================  =====================================  =================================

One trap: *depth* counts layers while the papers' ``t`` runs over [0, 1] along them; *time* is
always training time.

References:
    Gao et al. 2024, *Global Convergence in Training Large-Scale Transformers*, arXiv 2410.23610.
    Song et al. 2024, *Unraveling the Gradient Descent Dynamics of Transformers*, arXiv 2411.07538.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Bool, Float

Tokens = Float[Array, "n d"]
"""The tokens of one sample."""

Mask = Bool[Array, "n"] | Bool[Array, "n n"]
"""True where a key may be attended to: per key [n], or per query and key [n n]."""

Weights = Float[Array, "n n"]
"""Attention weights, queries along the first axis."""

Scalar = Float[Array, ""]

Risk = Callable[[Any], Scalar]
"""A scalar function of the parameters."""
