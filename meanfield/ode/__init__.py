"""Solvers of dy/dt = F(t, y) as parts for diffrax, and the spectrum that limits them."""

from meanfield.ode.radius import Radius, spectral_radius
from meanfield.ode.spectrum import Extremes, extreme_eigenvalues, weighted
from meanfield.ode.stabilized import (
    RKC2,
    RKC2State,
    Statistics,
    check_rate,
    check_tolerances,
)

__all__ = [
    "RKC2",
    "Extremes",
    "RKC2State",
    "Radius",
    "Statistics",
    "check_rate",
    "check_tolerances",
    "extreme_eigenvalues",
    "spectral_radius",
    "weighted",
]
