"""What the record of ``pde`` says of the equation on the grid, and of the particles against it.

One trap: the rate M^{-1/2} is that of averages; W_2 in the plane has one of its own, so there the
particles are held against independent draws of the density, seed by seed.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import verdicts
from experiments.global_convergence.verdicts import Check, Interval
from meanfield import rates

AVERAGES = {
    "prediction": "predictions, sup in time",
    "histogram": "histogram, at the end",
    "marginals": "W₂ of marginals, at the end",
}
"""The errors that fall like M^(-1/2)."""
MASS, BALANCE, WALLS, WEAK = 1e-12, 1e-3, 1e-6, 1e-3
"""Bounds of the mass error, the energy balance, the mass at the walls, and the weak residual."""


class Facts(NamedTuple):
    """What is fitted to the record.

    Attributes:
        mass_error: Largest |mass - 1| over steps and half-steps.
        negative: How far the density falls below 0.
        blocked: Mass that the walls kept back.
        rise: Largest rise of the energy between saves; negative where it always falls.
        balance: Largest |loss of energy - dissipation|, relative to the loss over the run.
        order: Order of convergence in L^1 of successive refinements.
        slopes: Slope in M of each error, and of the distances in the plane.
        excess: Slope in the plane of the particles less that of draws, seed by seed.
        floor: What halving the finest grid changes in the outputs at the end.
        weak: Weak residual of a particle run, relative to the largest rate.
        doctored: The same at 3 % more speed.
        solver: Worst energy balance of the particle runs.
        completed: Whether the run on the finest grid reached its end.
    """

    mass_error: float
    negative: float
    blocked: float
    rise: float
    balance: float
    order: rates.Fit
    slopes: dict[str, rates.Fit]
    excess: Interval
    floor: float
    weak: float
    doctored: float
    solver: float
    completed: bool


def facts(arrays: dict[str, Any]) -> Facts:
    """Everything that the figures and the report state."""
    widths, errors, weak = arrays["widths"], arrays["errors"], arrays["weak"]
    slopes = {name: rates.log_log_slope(widths, values) for name, values in errors.items()}
    lost = arrays["energy"][0] - arrays["energy"]
    dissipated = arrays["dissipated"].sum(axis=1) / arrays["depth"]
    scale = np.abs(weak["rate"]).max()
    return Facts(
        mass_error=float(arrays["mass_error"]),
        negative=float(max(0.0, -arrays["least"])),
        blocked=float(arrays["blocked"]),
        rise=float(np.diff(arrays["energy"]).max()),
        balance=float(np.abs(lost - dissipated).max() / np.abs(lost).max()),
        order=rates.log_log_slope(1 / arrays["cells"], arrays["gaps"]),
        slopes=slopes,
        excess=verdicts.over_seeds(
            _slopes(widths, errors["plane"]) - _slopes(widths, errors["draws"])
        ),
        floor=float(arrays["floor"]),
        weak=float(np.abs(weak["residual"]).max() / scale),
        doctored=float(np.abs(weak["doctored"]).max() / scale),
        solver=float(arrays["balance"]),
        completed=bool(arrays["completed"]),
    )


def equation(found: Facts) -> list[Check]:
    """Whether the grid solves the equation."""
    return [
        verdicts.at_most("mass error", found.mass_error, MASS),
        verdicts.at_most("negative density", found.negative, 0.0),
        verdicts.at_most("mass at the walls", found.blocked, WALLS),
        verdicts.at_most("largest rise of the energy between saves", found.rise, 0.0),
        verdicts.at_most("energy lost less dissipation, relative", found.balance, BALANCE),
        verdicts.at_least("order in L¹ under refinement", verdicts.of_slope(found.order), 1.0),
    ]


def particles(found: Facts) -> list[Check]:
    """Whether particles follow the equation and approach the grid at the rate expected."""
    named = [(f"slope in M of {said}", found.slopes[name]) for name, said in AVERAGES.items()]
    return [
        verdicts.at_most("weak residual of the particles, relative", found.weak, WEAK),
        verdicts.at_most(
            "that, over the residual at 3 % more speed",
            found.weak / max(found.doctored, np.finfo(float).tiny),
            0.1,
        ),
        *(verdicts.near(name, verdicts.of_slope(fit), -0.5) for name, fit in named),
        verdicts.near("slope of W₂ in the plane, less that of draws", found.excess, 0.0),
    ]


def verdict(found: Facts) -> tuple[bool | None, str]:
    """Whether particles agree with the limit on the grid, and why."""
    checks = equation(found) + particles(found)
    if not found.completed:
        return None, "the grid did not reach the end; " + verdicts.because(checks)
    return verdicts.joint(checks), verdicts.because(checks)


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.polyfit(np.log(x), np.log(y).T, 1)[0]
