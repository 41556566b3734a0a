"""Solvers of dy/dt = F(t, y) as parts for diffrax, and the spectrum that limits them.

Trap: the largest |eigenvalue| bounds a stable step, the largest signed one is the sharpness;
`spectral_radius` gives the first, `extreme_eigenvalues` the second.
"""

from meanfield.ode.ledger import Ledger, LedgerState
from meanfield.ode.problem import check_rate, check_tolerances
from meanfield.ode.radius import Radius, spectral_radius
from meanfield.ode.spectrum import Extremes, extreme_eigenvalues, weighted
from meanfield.ode.stabilized import RKC2, RKC2State
from meanfield.ode.statistics import with_ledger, work

__all__ = [
    "RKC2",
    "Extremes",
    "Ledger",
    "LedgerState",
    "RKC2State",
    "Radius",
    "check_rate",
    "check_tolerances",
    "extreme_eigenvalues",
    "spectral_radius",
    "weighted",
    "with_ledger",
    "work",
]
