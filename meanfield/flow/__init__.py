"""Training: risk, energy, the field of the gradient flow, the flow and its discrete twin."""

from meanfield.flow.descent import descent
from meanfield.flow.gradient import GradientField, gradient_field
from meanfield.flow.parting import Parting, parting
from meanfield.flow.record import EnergyBalance, Record
from meanfield.flow.risk import cross_entropy, empirical_risk, energy, square
from meanfield.flow.sharpness import Sharpness, sharpness, sharpness_along
from meanfield.flow.solve import gradient_flow
from meanfield.flow.stopping import gradient_below, risk_below, stationary

__all__ = [
    "EnergyBalance",
    "GradientField",
    "Parting",
    "Record",
    "Sharpness",
    "cross_entropy",
    "descent",
    "empirical_risk",
    "energy",
    "gradient_below",
    "gradient_field",
    "gradient_flow",
    "parting",
    "risk_below",
    "sharpness",
    "sharpness_along",
    "square",
    "stationary",
]
