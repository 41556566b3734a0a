"""Theorems as computable quantities: the depth limit, the first variation, optimality.

Trap: everything here is of mean-field networks, averages over particles with depth step 1/L; other
scaling laws have no such limit.
"""

from meanfield.theory.depth_limit import limit_states, limit_tokens
from meanfield.theory.enclosure import Enclosure
from meanfield.theory.first_variation import (
    FirstVariation,
    dissipation,
    first_variation,
    stationarity,
)
from meanfield.theory.frank_wolfe import Gap, frank_wolfe_gap, neuron_bounds
from meanfield.theory.homogeneous import covering_angle
from meanfield.theory.optimality import Certificate, certificate
from meanfield.theory.search import Search
from meanfield.theory.states import States, at_depths, network_states

__all__ = [
    "Certificate",
    "Enclosure",
    "FirstVariation",
    "Gap",
    "Search",
    "States",
    "at_depths",
    "certificate",
    "covering_angle",
    "dissipation",
    "first_variation",
    "frank_wolfe_gap",
    "limit_states",
    "limit_tokens",
    "network_states",
    "neuron_bounds",
    "stationarity",
]
