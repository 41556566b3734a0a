"""Theorems as computable quantities: the depth limit, the first variation, optimality.

Trap: everything here is of mean-field networks, averages over particles with depth step 1/L; other
scaling laws have no such limit.
"""

from meanfield.theory.depth_limit import limit_states, limit_tokens
from meanfield.theory.first_variation import (
    FirstVariation,
    dissipation,
    first_variation,
    stationarity,
)
from meanfield.theory.states import States, at_depths, network_states

__all__ = [
    "FirstVariation",
    "States",
    "at_depths",
    "dissipation",
    "first_variation",
    "limit_states",
    "limit_tokens",
    "network_states",
    "stationarity",
]
