"""What the record of ``vit_heads`` says, with intervals over seeds.

One trap: the law of the heads has its limit in the mean-field parametrisation of the flow; in the
others and on minibatches only the curves are compared.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import head_law, vit_facts
from experiments.global_convergence.verdicts import Interval, over_seeds
from experiments.global_convergence.vit_flow import HEADS_EVERY
from meanfield import rates

LAW = "mean_field"
"""The parametrisation whose heads have a limiting law."""


class HeadLaw(NamedTuple):
    """How the law of the heads depends on their number.

    Attributes:
        last: Index of the last time at which the heads of all runs were kept.
        distance: Slope of the head-law distance against the effective width, at the end.
        draws: The same at the start, where the heads are exactly i.i.d.
        change: Slope at the end minus slope at the start, seed by seed.
        gap: Slope of the gap between coupled paths against the nested width, at the end.
    """

    last: int
    distance: rates.Fit
    draws: rates.Fit
    change: Interval
    gap: rates.Fit | None


class Facts(NamedTuple):
    """What is fitted to the record of one law.

    Attributes:
        curves: Widest minus narrowest network.
        heads: The law of the heads; None where it has no limit or was not kept.
        solver: Of flows: relative change of the narrowest network's last loss at a tenth of the
            tolerance.
    """

    curves: vit_facts.Curves
    heads: HeadLaw | None
    solver: float | None


def facts(arrays: dict[str, Any], scalings: tuple[str, ...]) -> dict[str, Facts]:
    """Everything that the figures and the report state, law by law.

    Args:
        arrays: The record.
        scalings: The laws.
    """
    return {law: _facts(arrays, arrays[law]) for law in scalings}


def _facts(arrays: dict[str, Any], found: dict[str, Any]) -> Facts:
    curves = vit_facts.curves(arrays["times"], found)
    solver = None
    if "finer_loss" in found:
        finer = found["finer_loss"][curves.last]
        solver = float(abs(finer - found["loss"][0, 0, curves.last]) / finer)
    heads = _head_law(arrays["heads"], found, curves.last) if "distance" in found else None
    return Facts(curves, heads, solver)


def _head_law(heads: np.ndarray, found: dict[str, Any], last_time: int) -> HeadLaw:
    last = last_time // HEADS_EVERY
    width = head_law.effective_width(heads)
    start, end = found["distance"][:, :, 0].T, found["distance"][:, :, last].T
    gap = found["gap"][:, :, last].T
    return HeadLaw(
        last=last,
        distance=rates.log_log_slope(width, end),
        draws=rates.log_log_slope(width, start),
        change=over_seeds(_slopes(width, end) - _slopes(width, start)),
        gap=rates.log_log_slope(head_law.nested_width(heads), gap) if last else None,
    )


def verdict(found: Facts, *, at_end: bool = False) -> tuple[bool | None, str]:
    """Whether a law agrees with "more heads, lower loss, higher accuracy", and why.

    Args:
        found: What is fitted to its record.
        at_end: Whether sizes are compared at the end of training, or averaged over it.
    """
    agrees, because = vit_facts.ordered(found.curves, at_end=at_end)
    start = "" if because.startswith("not every") else "widest minus narrowest network, "
    return agrees, f"{start}{because}"


def interval(fit: rates.Fit | Interval) -> str:
    """A slope or a mean with its interval, in words.

    Args:
        fit: The slope or the mean.
    """
    value = fit.slope if isinstance(fit, rates.Fit) else fit.mean
    return f"{value:.2f} (95 % interval [{fit.low:.2f}, {fit.high:.2f}])"


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.polyfit(np.log(x), np.log(y).T, 1)[0]
