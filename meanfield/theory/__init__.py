"""Theorems as computable quantities: depth limit, first variation, optimality, tangents, rates.

Trap: depth limit, first variation and optimality are of mean-field networks, averages over
particles with depth step 1/L; other scaling laws have no such limit. The tangent kernel and the
coordinate check are of any model; linear rates, the ball test and the hull test are of one
attention layer, a sum over heads.
"""

from meanfield.theory.attention_layer import (
    AttentionLayer,
    attention_features,
    attention_output,
    attention_risk,
    attention_weights,
)
from meanfield.theory.ball_check import BallCheck, ball_check
from meanfield.theory.ball_test import BallTest, ball_test
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
from meanfield.theory.hull import Reach, hull_distance, reach_test, zonotope_distance
from meanfield.theory.kernel_lipschitz import GaussianKernel, SoftmaxKernel
from meanfield.theory.kernel_regime import KernelDistance, kernel_distance, smallest_eigenvalue
from meanfield.theory.layer_descent import Descent, layer_descent
from meanfield.theory.lazy import (
    LinearisedFlow,
    OutputScale,
    linearised,
    linearised_flow,
    output_scale,
)
from meanfield.theory.linear_rate import (
    RateConstants,
    SizeTests,
    rate_constants,
    size_tests,
    smoothness,
)
from meanfield.theory.observed_rate import ObservedRate, RateCheck, observed_rate, rate_check
from meanfield.theory.optimality import Certificate, certificate
from meanfield.theory.pl_constants import Extremes, pl_constant, tangent_extremes
from meanfield.theory.rate_starts import (
    HeadSearch,
    Try,
    random_start,
    silent_start,
    smallest_heads,
    sufficient_start,
)
from meanfield.theory.search import Search
from meanfield.theory.states import States, at_depths, network_states
from meanfield.theory.tangent import tangent_kernel, tangent_product

__all__ = [
    "AttentionLayer",
    "BallCheck",
    "BallTest",
    "Certificate",
    "CoordinateCheck",
    "Descent",
    "Enclosure",
    "Extremes",
    "FirstVariation",
    "Gap",
    "GaussianKernel",
    "HeadSearch",
    "KernelDistance",
    "LinearisedFlow",
    "ObservedRate",
    "OutputScale",
    "RateCheck",
    "RateConstants",
    "Reach",
    "Search",
    "SizeTests",
    "SoftmaxKernel",
    "States",
    "Try",
    "at_depths",
    "attention_features",
    "attention_output",
    "attention_risk",
    "attention_weights",
    "ball_check",
    "ball_test",
    "certificate",
    "coordinate_check",
    "coordinates",
    "covering_angle",
    "dissipation",
    "first_variation",
    "frank_wolfe_gap",
    "hull_distance",
    "kernel_distance",
    "layer_descent",
    "limit_states",
    "limit_tokens",
    "linearised",
    "linearised_flow",
    "network_states",
    "neuron_bounds",
    "observed_rate",
    "output_scale",
    "pl_constant",
    "random_start",
    "rate_check",
    "rate_constants",
    "reach_test",
    "silent_start",
    "size_tests",
    "smallest_eigenvalue",
    "smallest_heads",
    "smoothness",
    "stationarity",
    "sufficient_start",
    "tangent_extremes",
    "tangent_kernel",
    "tangent_product",
    "zonotope_distance",
]
