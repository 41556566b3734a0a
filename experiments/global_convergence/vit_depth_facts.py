r"""What the record of ``vit_depth`` says: how fast training curves approach those of the deepest.

    gap(L) = max_tau |R_L(tau) - R_{L*}(tau)|,    L* the deepest,    against   L L*/(L* - L)

which for an error c/L is (c/L - c/L*), of slope -1. With particles that are paths over depth a
seed has the same M particles at every depth, and its networks tend to one depth ODE of M paths:
what is left is the step of depth, O(1/L). With independent draws fluctuations of order 1/sqrt(LM)
come on top: slope -1/2 or steeper.

One trap: O(1/L) is a bound. Gaps that fall faster agree with it, and gaps that fall over a few
layers only say nothing of the limit; so the rate must hold over all depths of the scan.

References:
    Gao et al. 2024, arXiv 2410.23610 (1/L + 1/sqrt(M) over a fixed horizon).
    Chizat 2025, arXiv 2509.10167 (1/sqrt(LM) with independent draws).
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import vit_facts
from experiments.global_convergence.verdicts import MARGIN, Interval
from meanfield import rates

LAW = "mean_field"
"""The parametrisation that has a limit in depth."""
EXPONENTS = {"path": 1.0, "independent": 0.5}
"""The rate 1/L^a that gaps must have at least, by the coupling over depth."""


class Facts(NamedTuple):
    """What is fitted to the record of one law.

    Attributes:
        curves: Deepest minus shallowest network.
        gaps: Gap to the deepest network's loss [s x], all depths but it.
        fit: Its slope against the nested depth; None if a gap is zero or not finite.
    """

    curves: vit_facts.Curves
    gaps: np.ndarray
    fit: rates.Fit | None


def facts(arrays: dict[str, Any], scalings: tuple[str, ...]) -> dict[str, Facts]:
    """Everything that the figures and the report state, law by law.

    Args:
        arrays: The record.
        scalings: The laws.
    """
    return {law: _facts(arrays, arrays[law]) for law in scalings}


def nested_depth(depths: np.ndarray) -> np.ndarray:
    """The depth L L*/(L* - L) of all but the deepest, as one over the difference of 1/L.

    Args:
        depths: Increasing depths.

    >>> nested_depth(np.array([2, 4])).tolist()
    [4.0]
    """
    return depths[:-1] * depths[-1] / (depths[-1] - depths[:-1])


def _facts(arrays: dict[str, Any], found: dict[str, Any]) -> Facts:
    curves = vit_facts.curves(arrays["times"], found)
    loss = found["loss"][..., : curves.last + 1]
    gaps = np.abs(loss[:-1] - loss[-1]).max(axis=-1).T
    fit = rates.log_log_slope(nested_depth(arrays["depths"]), gaps) if (gaps > 0).all() else None
    return Facts(curves, gaps, fit)


def verdict(found: dict[str, Facts], *, coupling: str, training: str) -> tuple[bool | None, str]:
    """Whether training curves approach a limit in depth at the rate of the theorem, and why.

    Args:
        found: What is fitted, law by law.
        coupling: How particles are drawn over depth.
        training: How networks trained.
    """
    if LAW not in found:
        return None, "the claim is about the mean-field parametrisation, which was not trained."
    one, least = found[LAW], EXPONENTS[coupling]
    if one.fit is None:
        return None, "some gap is zero or not finite, so no rate can be fitted."
    rate = Interval(-one.fit.slope, -one.fit.high, -one.fit.low)
    because = (
        "the gap to the deepest network's training loss, at its largest over training, falls like "
        f"1/L^a with a = {rate.mean:.2f} (95 % interval [{rate.low:.2f}, {rate.high:.2f}]); the "
        f"theorem asks for a ≥ {least:g}, here within {MARGIN:g}."
    )
    if not one.curves.completed:
        return None, f"not every run completed; as far as all came, {because}"
    if training == "adam":
        return None, f"the theorem is about gradients as they are, not Adam's: {because}"
    if rate.low < least - MARGIN <= rate.high:
        return None, f"{because} The interval reaches both sides: more seeds or depths decide."
    return rate.low >= least - MARGIN, because
