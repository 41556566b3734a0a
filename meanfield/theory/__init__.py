"""Theorems as computable quantities: depth limit, first variation, optimality, tangent kernel.

Trap: depth limit, first variation and optimality are of mean-field networks, averages over
particles with depth step 1/L; other scaling laws have no such limit. The tangent kernel and the
coordinate check are of any model.
"""

from meanfield.theory.coordinate_check import CoordinateCheck, coordinate_check, coordinates
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
from meanfield.theory.kernel_regime import KernelDistance, kernel_distance, smallest_eigenvalue
from meanfield.theory.lazy import (
    LinearisedFlow,
    OutputScale,
    linearised,
    linearised_flow,
    output_scale,
)
from meanfield.theory.optimality import Certificate, certificate
from meanfield.theory.search import Search
from meanfield.theory.states import States, at_depths, network_states
from meanfield.theory.tangent import tangent_kernel, tangent_product

__all__ = [
    "Certificate",
    "CoordinateCheck",
    "Enclosure",
    "FirstVariation",
    "Gap",
    "KernelDistance",
    "LinearisedFlow",
    "OutputScale",
    "Search",
    "States",
    "at_depths",
    "certificate",
    "coordinate_check",
    "coordinates",
    "covering_angle",
    "dissipation",
    "first_variation",
    "frank_wolfe_gap",
    "kernel_distance",
    "limit_states",
    "limit_tokens",
    "linearised",
    "linearised_flow",
    "network_states",
    "neuron_bounds",
    "output_scale",
    "smallest_eigenvalue",
    "stationarity",
    "tangent_kernel",
    "tangent_product",
]
