"""Gradient flow and mean-field analysis of Transformers, as pure functions in JAX.

    nn         the map x -> f(x; theta): kernels, particles, scaling laws, networks, models
    flow       training: risk, energy, the gradient flow, its field and its discrete twin
    ode        stabilised explicit solvers and the spectrum that limits them, as parts for diffrax
    measure    heads as particles: clouds, moments, distances
    theory     theorems as computable quantities: depth limit, first variation, certificates
    landscape  the terrain of a risk: directions, slices, barriers, curvature
    tasks      problems with known answers
    rates      slopes, laws of several terms and limits of infinite width, with intervals
    store      run directories
    plots      records as figures
    past       runs shown, compared and repeated

References:
    Gao et al. 2024, *Global Convergence in Training Large-Scale Transformers*, arXiv 2410.23610.
    Song et al. 2024, *Unraveling the Gradient Descent Dynamics of Transformers*, arXiv 2411.07538.
"""

import importlib
from importlib import metadata
from types import ModuleType

from meanfield import flow, landscape, measure, nn, ode, theory
from meanfield.flow import descent, empirical_risk, energy, gradient_field, gradient_flow
from meanfield.nn import attention, mlp, model, network

__version__ = metadata.version("meanfield")

_ON_DEMAND = ("past", "plots", "rates", "store", "tasks")

__all__ = [
    "attention",
    "descent",
    "empirical_risk",
    "energy",
    "flow",
    "gradient_field",
    "gradient_flow",
    "landscape",
    "measure",
    "mlp",
    "model",
    "network",
    "nn",
    "ode",
    "theory",
]


def __getattr__(name: str) -> ModuleType:
    # Flows need neither scipy nor matplotlib: these rooms are imported when they are first named.
    if name in _ON_DEMAND:
        return importlib.import_module(f"meanfield.{name}")
    raise AttributeError(f"module 'meanfield' has no attribute {name!r}")
