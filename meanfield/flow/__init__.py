"""Training: risk, energy, the field of the gradient flow, the flow and its discrete twin."""

from meanfield.flow.descent import descent
from meanfield.flow.gradient import GradientField, gradient_field
from meanfield.flow.record import EnergyBalance, Record
from meanfield.flow.risk import cross_entropy, empirical_risk, energy, square
from meanfield.flow.solve import gradient_flow
from meanfield.flow.stopping import gradient_below, risk_below, stationary

__all__ = [
    "EnergyBalance",
    "GradientField",
    "Record",
    "cross_entropy",
    "descent",
    "empirical_risk",
    "energy",
    "gradient_below",
    "gradient_field",
    "gradient_flow",
    "risk_below",
    "square",
    "stationary",
]
