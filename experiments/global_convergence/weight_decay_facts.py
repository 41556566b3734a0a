"""What the record of ``weight_decay`` says of R against lambda, with intervals over seeds.

One trap: seeds that all end at one optimum agree on a slope to many digits even where no power law
holds, so the interval is widened to hold that of the line's residuals as well.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import verdicts
from experiments.global_convergence.verdicts import Check, Interval
from meanfield import rates

PROBLEMS = {"neurons": "one layer of neurons, convex", "transformer": "Transformer in context"}
STATIONARY = "stopped"
DIVERGED = "diverged"


class Ladder(NamedTuple):
    """What is found on one problem.

    Attributes:
        stationary: Which runs were stationary [d s], of lambda = 0 too.
        fitted: The decays where all seeds were, in decreasing order.
        law: Exponent p of R ~ a lambda^p over them; None if there are fewer than three.
        line: The fitted line, to draw; None likewise.
        local: Exponents between neighbours among the fitted, mean over seeds.
        worst: Largest R/lambda over the fitted.
        drift: Largest relative change of R in the time 1/lambda over the fitted.
        zero: Mean risk at the end of the flow without decay.
        force: Of sup |g_t| / (lambda max |theta_1|) over fitted runs: the median and the largest
            of its least over half-steps (the theorem asks for one depth), and the largest of all.
        descents: In how many fitted runs the searched gap is more than a tenth of Q.
        runs: Number of fitted runs.
        optimum: Lower and upper bound of Q* at each fitted decay [d 2]; NaN without convexity.
    """

    stationary: np.ndarray
    fitted: np.ndarray
    law: Interval | None
    line: rates.Fit | None
    local: np.ndarray
    worst: float
    drift: float
    zero: float
    force: tuple[float, float, float]
    descents: int
    runs: int
    optimum: np.ndarray


def facts(arrays: dict[str, Any]) -> dict[str, Ladder]:
    """Everything that the figures and the report state, by problem."""
    return {name: ladder(arrays["decays"], arrays[name]) for name in PROBLEMS}


def ladder(decays: np.ndarray, found: dict[str, Any]) -> Ladder:
    """The facts of one problem; the last of the decays is 0."""
    stationary = np.asarray(found["result"]) == STATIONARY
    chosen = stationary.all(axis=1) & (decays > 0)
    lambdas, risks = decays[chosen], found["risk"][chosen]
    several = len(lambdas) >= 3
    line = rates.log_log_slope(lambdas, risks.T) if several else None
    steps = np.diff(np.log(risks), axis=0).mean(axis=1) / np.diff(np.log(lambdas))
    force = force_ratios(decays, found)[chosen]
    below = found["searched_gap"][chosen] > 0.1 * found["energy"][chosen]
    return Ladder(
        stationary=stationary,
        fitted=lambdas,
        law=None if line is None else _widened(lambdas, risks, line),
        line=line,
        local=steps,
        worst=float(np.max(risks / lambdas[:, None], initial=0.0)),
        drift=float(np.max(found["drift"][chosen], initial=0.0)),
        zero=float(found["risk"][decays == 0].mean()),
        force=_spread_of(force),
        descents=int(below.sum()),
        runs=int(below.size),
        optimum=_optimum(found["energy"][chosen], found["gap"][chosen]),
    )


def checks(found: dict[str, Ladder]) -> list[Check]:
    """Whether R = O(lambda), on each problem."""
    unknown = Interval(np.nan, np.nan, np.nan)
    return [
        verdicts.at_least(
            f"exponent p of R ~ λ^p, {PROBLEMS[name]}",
            one.law or unknown,
            1.0,
            margin=verdicts.MARGIN,
        )
        for name, one in found.items()
    ]


def verdict(found: dict[str, Ladder]) -> tuple[bool | None, str]:
    """Whether both problems agree with R = O(lambda), and why."""
    parts = []
    for name, one in found.items():
        count = f"{one.stationary[:-1].sum()} of {one.stationary[:-1].size} runs with λ > 0"
        law = "fewer than three λ to fit" if one.law is None else f"p = {verdicts.said(one.law)}"
        span = "" if one.law is None else f" for λ from {one.fitted[0]:g} to {one.fitted[-1]:g}"
        parts.append(f"{PROBLEMS[name]}: {law}{span}, {count} stationary")
    return verdicts.joint(checks(found)), "; ".join(parts) + "."


def broken(arrays: dict[str, Any]) -> list[str]:
    """A sentence for each run that diverged: which, when and why."""
    return [
        f"{PROBLEMS[name]}, λ = {arrays['decays'][row]:g}, seed {seed}: "
        f"{arrays[name]['message'][row, seed]}"
        for name in PROBLEMS
        for row, seed in np.argwhere(np.asarray(arrays[name]["result"]) == DIVERGED)
    ]


def force_ratios(decays: np.ndarray, found: dict[str, Any]) -> np.ndarray:
    """Of every run and half-step sup |g_t| / (lambda max |theta_1|) [d s k l]."""
    own = decays[:, None, None, None] * found["largest"]
    return np.divide(found["force"], own, out=np.full_like(own, np.inf), where=own > 0)


def _spread_of(ratios: np.ndarray) -> tuple[float, float, float]:
    if not ratios.size:
        return np.nan, np.nan, np.nan
    least = ratios.min(axis=(2, 3))
    return float(np.median(least)), float(least.max()), float(ratios.max())


def _widened(lambdas: np.ndarray, risks: np.ndarray, line: rates.Fit) -> Interval:
    mean = rates.log_log_slope(lambdas, np.exp(np.log(risks).mean(axis=1)))
    return Interval(line.slope, min(line.low, mean.low), max(line.high, mean.high))


def _optimum(energies: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Q* lies below every energy and above every energy less its gap: all seeds share it."""
    lower = np.maximum((energies - gaps).max(axis=1, initial=-np.inf), 0.0)
    return np.stack([lower, energies.min(axis=1, initial=np.inf)], axis=1)
