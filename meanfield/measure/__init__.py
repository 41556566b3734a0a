"""Heads as particles: the empirical measure of every layer, and distances between such measures.

    rho_t = (1/m) sum_j delta_{theta_{t,j}},    t = 1, ..., l

`empirical` turns a block's particles into clouds of points and back, `gauge` into coordinates of
the maps they compute. Clouds are compared by transport (`distances`, `quantiles`, `entropic`) and
by kernels (`discrepancy`), always as a root and with weights where wanted; `sampling` says what of
a distance is chance. `continuity` moves the measure itself, as a density on a grid; `chaos` runs
replicas at many widths and depths, and `sup_errors` measures how far they are from their limit.
Trap: in `clouds` a head enters as its raw parameters, so two heads that compute the same map
through different factorisations are different points; `head_coordinates` makes them one.
"""

from meanfield.measure.binning import (
    draw_particles,
    histogram,
    wasserstein_to_density,
    weighted_particles,
)
from meanfield.measure.chaos import (
    Replicas,
    SideBySide,
    Trajectory,
    first_particles,
    replicas,
    side_by_side,
)
from meanfield.measure.continuity import DensityFlow, density_flow, variation_of
from meanfield.measure.discrepancy import energy_distance, mmd
from meanfield.measure.distances import network_distance, wasserstein, wasserstein_of
from meanfield.measure.empirical import (
    cloud,
    clouds,
    covariance,
    mean,
    norm_quantiles,
    particles_from_cloud,
    resample,
    second_moment,
)
from meanfield.measure.entropic import sinkhorn_divergence
from meanfield.measure.gauge import head_coordinates, head_distances, neuron_coordinates
from meanfield.measure.grid import Grid, grid_density, uniform_grid
from meanfield.measure.quantiles import sliced_wasserstein, wasserstein_1d
from meanfield.measure.references import (
    Reference,
    averaged,
    effective_width,
    exact_reference,
    mean_reference,
    own_reference,
)
from meanfield.measure.sampling import SampledDistance, sampling_bias
from meanfield.measure.sup_errors import Errors, over_widths, sup_errors
from meanfield.measure.weak_residual import WeakResidual, weak_residual

__all__ = [
    "DensityFlow",
    "Errors",
    "Grid",
    "Reference",
    "Replicas",
    "SampledDistance",
    "SideBySide",
    "Trajectory",
    "WeakResidual",
    "averaged",
    "cloud",
    "clouds",
    "covariance",
    "density_flow",
    "draw_particles",
    "effective_width",
    "energy_distance",
    "exact_reference",
    "first_particles",
    "grid_density",
    "head_coordinates",
    "head_distances",
    "histogram",
    "mean",
    "mean_reference",
    "mmd",
    "network_distance",
    "neuron_coordinates",
    "norm_quantiles",
    "over_widths",
    "own_reference",
    "particles_from_cloud",
    "replicas",
    "resample",
    "sampling_bias",
    "second_moment",
    "side_by_side",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "sup_errors",
    "uniform_grid",
    "variation_of",
    "wasserstein",
    "wasserstein_1d",
    "wasserstein_of",
    "wasserstein_to_density",
    "weak_residual",
    "weighted_particles",
]
