"""Checks of a claim against measured numbers: each agrees, does not, or cannot tell.

    near        [low, high] within margin of the expected value
    at_least    low >= bound - margin and high >= bound
    at_most     value <= bound

One trap: an interval that is wide enough holds any value, so holding the expected one is no
agreement; the whole interval must lie within the margin, and more seeds can decide what is open.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments import _report
from meanfield import rates

MARGIN = 0.1
"""How far an exponent may lie from the expected one."""


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float


class Check(NamedTuple):
    """One quantity of a claim: what was expected, what was measured, and whether they agree."""

    quantity: str
    expected: str
    measured: str
    agrees: bool | None


def over_seeds(values: np.ndarray) -> Interval:
    """The mean of one number per seed."""
    band = rates.band(np.asarray(values, float)[:, None])
    return Interval(float(band.mean[0]), float(band.low[0]), float(band.high[0]))


def of_slope(fit: rates.Fit) -> Interval:
    """The slope of a fit."""
    return Interval(fit.slope, fit.low, fit.high)


def near(quantity: str, found: Interval, expected: float, *, margin: float = MARGIN) -> Check:
    """Whether a number is the expected one, up to a margin."""
    agrees: bool | None = None
    if expected - margin <= found.low and found.high <= expected + margin:
        agrees = True
    elif found.high < expected - margin or found.low > expected + margin:
        agrees = False
    return Check(quantity, f"{_number(expected)} ± {margin:g}", said(found), agrees)


def at_least(quantity: str, found: Interval, bound: float, *, margin: float = 0.0) -> Check:
    """Whether a number is not below a bound; within the margin the interval may reach below it."""
    agrees: bool | None = None
    if found.low >= bound - margin and found.high >= bound:
        agrees = True
    elif found.high < bound:
        agrees = False
    return Check(quantity, f"≥ {_number(bound)}", said(found), agrees)


def at_most(quantity: str, value: float, bound: float) -> Check:
    """Whether a number that has no interval stays below a bound."""
    agrees = None if math.isnan(value) else bool(value <= bound)
    return Check(quantity, f"≤ {bound:.2g}", f"{value:.2g}".replace("-", "−"), agrees)


def joint(checks: Sequence[Check]) -> bool | None:
    """All of them together: one that fails decides, one that is open leaves it open."""
    if any(check.agrees is False for check in checks):
        return False
    return True if checks and all(check.agrees for check in checks) else None


def because(checks: Sequence[Check]) -> str:
    """How many agree, and which do not or cannot tell."""
    agreed = sum(check.agrees is True for check in checks)
    parts = [f"{agreed} of {len(checks)} checks agree"]
    for word, outcome in (("not met", False), ("open", None)):
        rest = [f"{c.quantity} ({c.measured})" for c in checks if c.agrees is outcome]
        if rest:
            parts.append(f"{word}: {'; '.join(rest)}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def table(checks: Sequence[Check]) -> str:
    """The checks as a table of a report."""
    words = {True: "agrees", False: "does not agree", None: "cannot tell"}
    rows = [[c.quantity, c.expected, c.measured, words[c.agrees]] for c in checks]
    return _report.table(["quantity", "expected", "measured", "verdict"], rows)


def said(found: Interval) -> str:
    """A number with its interval, in words."""
    return f"{_number(found.mean)} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
