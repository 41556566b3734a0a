"""What the record of ``depth_limit`` says: orders, slopes and laws, each with its interval.

One trap: a slope in L M alone does not tell the couplings apart where few depths are deep; the
slopes in M and in L, and laws that predict networks they were not fitted to, do.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import limit_checks
from meanfield import rates

LAW = {"independent": "a/sqrt(LM) + b/L", "path": "a/sqrt(M) + b/L"}
"""What theory says of each coupling."""
IN_DEPTH = {"independent": -0.5, "path": 0.0}
VARIABLE = {"independent": "L·M", "path": "M"}
PRECISION = 0.1
"""Half the length of an interval above which a slope says too little."""


class Coupling(NamedTuple):
    """What is fitted to the errors of one coupling.

    Attributes:
        predictions: Slope of the fluctuation of predictions in L M, or in M.
        risk: The same of the risk.
        in_width: Slope of that of predictions in M, over all depths.
        in_depth: The same in L, over all widths.
        correction: Slope c in 1/L of the logarithm of that fluctuation over its law, whose size at
            L layers is then 1 + c/L times that of infinite depth, to first order.
        ranking: Of the two laws, on the errors against the limit of infinite depth.
        laws: Both fitted to these errors, by name.
    """

    predictions: rates.Fit
    risk: rates.Fit
    in_width: rates.Fit
    in_depth: rates.Fit
    correction: rates.Fit
    ranking: rates.Ranking
    laws: dict[str, rates.LawFit]


class Facts(NamedTuple):
    """What is fitted to the record.

    Attributes:
        tokens: Slope of the error of the tokens against the depth ODE, in L.
        forces: The same of the adjoint.
        couplings: The two couplings, by name.
    """

    tokens: rates.Fit
    forces: rates.Fit
    couplings: dict[str, Coupling]


def facts(arrays: dict[str, Any]) -> Facts:
    """Everything that the figures and the report state."""
    order = {
        name: rates.log_log_slope(arrays["layers"], rows) for name, rows in arrays["order"].items()
    }
    couplings = {name: _coupling(name, errors) for name, errors in arrays["couplings"].items()}
    return Facts(order["tokens"], order["forces"], couplings)


def checks(facts: Facts) -> tuple[list[limit_checks.Check], list[limit_checks.Check]]:
    """The checks of the depth ODE, and those of the couplings."""
    order = [
        limit_checks.order("tokens against the depth ODE: slope in L", facts.tokens, -1.0),
        limit_checks.order("adjoint against the depth ODE: slope in L", facts.forces, -1.0),
    ]
    rows = [_checks(name, coupling) for name, coupling in facts.couplings.items()]
    return order, [check for row in rows for check in row]


def in_depth(facts: Facts) -> list[limit_checks.Check]:
    """The slopes in L at given widths, where what a layer changes by order 1/L is seen most."""
    return [
        limit_checks.slope(
            f"{name}: predictions, slope in L",
            coupling.in_depth,
            IN_DEPTH[name],
            precision=PRECISION,
        )
        for name, coupling in facts.couplings.items()
    ]


def separation(facts: Facts) -> tuple[bool | None, str]:
    """Whether the two couplings were told apart, each with its own law, and how it was decided."""
    choices = [_choice(name, coupling) for name, coupling in facts.couplings.items()]
    agrees, because = limit_checks.together(choices)
    slopes = {name: coupling.in_depth for name, coupling in facts.couplings.items()}
    apart = _apart(*slopes.values())
    said = " and ".join(f"{limit_checks.said(fit)} ({name})" for name, fit in slopes.items())
    words = "do not overlap" if apart else "overlap"
    agrees = agrees if apart or agrees is False else None
    return agrees, f"the slopes of the fluctuation in L, {said}, {words}. {because}"


def law_values(
    coupling: dict[str, Any], fit: rates.LawFit, name: str, depths: np.ndarray, width: float
) -> np.ndarray:
    """A fitted law, reference taken off, along the depth at one width."""
    a, b = fit.coefficients
    power = 0.5 if "LM" in name else 0.0
    reference = coupling["reference_depths"][0]
    fluctuation = a**2 * (
        1 / (width * depths ** (2 * power))
        + 1 / (coupling["reference_width"] * reference ** (2 * power))
    )
    return np.sqrt(fluctuation) + b * (1 / depths - 1 / reference)


def lines(errors: np.ndarray, fit: rates.Fit, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fitted line and that of slope -1/2 through its middle, at both ends of the points."""
    middle = np.sqrt(ends.prod())
    # Seeds are averaged as logarithms in the fit and as squares in the points.
    gap = np.mean(np.log(_root_mean_square(errors)) - np.log(errors).mean(axis=0))
    level = np.exp(fit.intercept + gap) * middle**fit.slope
    return level * (ends / middle) ** fit.slope, level * (ends / middle) ** -0.5


def smallest(arrays: dict[str, Any]) -> float:
    """The smallest fluctuation of predictions that was measured, over seeds."""
    found = arrays["couplings"].values()
    return min(float(_root_mean_square(errors["predictions"]).min()) for errors in found)


def _root_mean_square(errors: np.ndarray) -> np.ndarray:
    return np.sqrt((errors**2).mean(axis=0))


def _coupling(name: str, errors: dict[str, Any]) -> Coupling:
    widths, depths = errors["effective_widths"], errors["depths"]
    variable = widths * depths if name == "independent" else widths
    grid = (errors["to_limit"], errors["widths"], errors["depths"])
    laws = {law: rates.LAWS[law] for law in LAW.values()}
    reference = (float(errors["reference_width"]), errors["reference_depths"])
    return Coupling(
        predictions=rates.log_log_slope(variable, errors["predictions"]),
        risk=rates.log_log_slope(variable, errors["risk"]),
        in_width=rates.log_log_slope(widths, errors["predictions"]),
        in_depth=rates.log_log_slope(depths, errors["predictions"]),
        correction=rates.log_log_slope(
            np.exp(1 / depths), errors["predictions"] * np.sqrt(variable)[None]
        ),
        ranking=rates.law_ranking(np.random.default_rng(0), *grid, laws, reference=reference),
        laws={
            law: rates.law_fit(np.random.default_rng(1), *grid, terms, reference=reference)
            for law, terms in laws.items()
        },
    )


def _checks(name: str, coupling: Coupling) -> list[limit_checks.Check]:
    along = f"{name}: "
    slopes = (
        (f"predictions, slope in {VARIABLE[name]}", coupling.predictions, -0.5),
        (f"risk, slope in {VARIABLE[name]}", coupling.risk, -0.5),
        ("predictions, slope in M", coupling.in_width, -0.5),
    )
    if VARIABLE[name] == "M":
        slopes = slopes[1:]
    return [
        *(
            limit_checks.slope(along + said, fit, expected, precision=PRECISION)
            for said, fit, expected in slopes
        ),
        _choice(name, coupling),
    ]


def _choice(name: str, coupling: Coupling) -> limit_checks.Check:
    return limit_checks.choice(f"{name}: law", coupling.ranking, LAW[name])


def _apart(one: rates.Fit, other: rates.Fit) -> bool:
    return one.high < other.low or other.high < one.low
