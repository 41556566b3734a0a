"""Checks of a limit theorem: a measured interval against the number that the theorem gives.

    agrees           the interval holds the number, and is short enough to say something
    does not agree   it does not hold the number
    cannot tell      it holds the number, and much else

One trap: many intervals of 95 % are not all right at once; ``together`` says so in the report.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments import _report
from meanfield import rates

WORDS = {True: "agrees", False: "does not agree", None: "cannot tell"}


class Check(NamedTuple):
    """One measured quantity beside what theory says of it."""

    quantity: str
    expected: str
    measured: str
    agrees: bool | None


def slope(quantity: str, fit: rates.Fit, expected: float, /, *, precision: float) -> Check:
    """Whether the interval of a slope holds the expected one, at most `precision` from its ends."""
    agrees: bool | None = False
    if fit.low <= expected <= fit.high:
        agrees = True if fit.high - fit.low <= 2 * precision else None
    return Check(quantity, number(expected), said(fit), agrees)


def order(quantity: str, fit: rates.Fit, expected: float, /, *, margin: float = 0.1) -> Check:
    """Whether the whole interval of an order of convergence is within a margin of the expected."""
    agrees: bool | None = None
    if expected - margin <= fit.low and fit.high <= expected + margin:
        agrees = True
    elif fit.high < expected - margin or fit.low > expected + margin:
        agrees = False
    expects = f"{number(expected)} ± {margin:g}"
    return Check(quantity, expects, said(fit), agrees)


def choice(quantity: str, ranking: rates.Ranking, expected: str, /) -> Check:
    """Whether a ranking of laws chose the expected one and left no rival."""
    agrees = None if ranking.rivals else ranking.chosen == expected
    scores = ", ".join(f"{one.name} {100 * one.score:.1f} %" for one in ranking.evidence)
    undecided = " (undecided)" if ranking.rivals else ""
    return Check(quantity, expected, f"{ranking.chosen}{undecided}; off by: {scores}", agrees)


def together(checks: Sequence[Check], /) -> tuple[bool | None, str]:
    """The verdict on all checks, and why: one that fails decides, one that is open leaves it open.

    Args:
        checks: The checks.
    """
    agreed = sum(check.agrees is True for check in checks)
    parts = [f"{agreed} of {len(checks)} checks agree."]
    for word, outcome in (("Not met", False), ("Open", None)):
        named = [f"{c.quantity}: {c.measured}" for c in checks if c.agrees is outcome]
        parts += [f"{word}: {'; '.join(named)}."] if named else []
    outcomes = {check.agrees for check in checks}
    agrees = False if False in outcomes else None if None in outcomes or not checks else True
    return agrees, " ".join(parts)


def table(checks: Sequence[Check], /) -> str:
    """The checks as a table of a report."""
    rows = [[*check[:3], WORDS[check.agrees]] for check in checks]
    return _report.table(["quantity", "expected", "measured, 95 % interval", "verdict"], rows)


def root_mean_square(errors: np.ndarray, /) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Root mean square over seeds [s c] and its 95 % interval [c], that of the mean square."""
    band = rates.band(np.square(errors))
    low, high = (np.sqrt(np.maximum(end, 0.0)) for end in (band.low, band.high))
    return np.sqrt(band.mean), low, high


def log_ticks(low: float, high: float, /) -> tuple[list[float], list[str]]:
    """Places 1, 2, 5 times powers of ten between two numbers, and their labels."""
    powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    places = (10.0 ** powers[:, None] * np.array([[1, 2, 5]])).ravel()
    places = places[(places >= low) & (places <= high)]
    return places.tolist(), [f"{place:g}" for place in places]


def interval(value: float, low: float, high: float, /) -> str:
    """A number with its interval, in words."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


def said(fit: rates.Fit, /) -> str:
    """A slope with its interval, in words."""
    return interval(fit.slope, fit.low, fit.high)


def number(value: float, /) -> str:
    """A number to two digits, with the sign of minus."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
