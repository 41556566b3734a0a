"""The terrain of a risk: directions, slices, barriers and curvature, of any risk on any tree.

    directions  random (filter-normalised), principal ones of a trajectory, between two points
    slices      the risk along a line or over a plane, and a trajectory's shadow there
    barriers    what the risk climbs between two points
    products    Hessian products; dense blocks of one head, one layer, or all
    curvature   signed extreme eigenvalues, trace
    spectrum    the spectral density by stochastic Lanczos quadrature

Trap: a risk is compiled once for each function *object*; a lambda written anew compiles anew.
"""

from meanfield.landscape.barriers import Barrier, barrier
from meanfield.landscape.curvature import Estimate, Extremes, hessian_extremes, hessian_trace
from meanfield.landscape.directions import (
    Principal,
    difference,
    orthonormal_pair,
    principal_directions,
    random_direction,
)
from meanfield.landscape.products import hessian_blocks, hessian_product
from meanfield.landscape.slices import Projection, line, plane, project
from meanfield.landscape.spectrum import (
    Broadened,
    Moments,
    SpectralDensity,
    broadened_density,
    spectral_density,
    spectral_moments,
)

__all__ = [
    "Barrier",
    "Broadened",
    "Estimate",
    "Extremes",
    "Moments",
    "Principal",
    "Projection",
    "SpectralDensity",
    "barrier",
    "broadened_density",
    "difference",
    "hessian_blocks",
    "hessian_extremes",
    "hessian_product",
    "hessian_trace",
    "line",
    "orthonormal_pair",
    "plane",
    "principal_directions",
    "project",
    "random_direction",
    "spectral_density",
    "spectral_moments",
]
