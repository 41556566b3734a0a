"""Heads as particles: the empirical measure of every layer, and distances between such measures.

    rho_t = (1/m) sum_j delta_{theta_{t,j}},    t = 1, ..., l

`empirical` turns a block's particles into clouds of points and back; `distances` compares clouds.
Trap: a head enters as its raw parameters, so two heads that compute the same map through different
factorisations are different points.
"""

from meanfield.measure.distances import (
    network_distance,
    sliced_wasserstein,
    wasserstein,
    wasserstein_1d,
)
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

__all__ = [
    "cloud",
    "clouds",
    "covariance",
    "mean",
    "network_distance",
    "norm_quantiles",
    "particles_from_cloud",
    "resample",
    "second_moment",
    "sliced_wasserstein",
    "wasserstein",
    "wasserstein_1d",
]
