"""What the landscapes of two kernels say, with intervals over seeds.

    flatter        ln of the ratio of the largest eigenvalues, trace, and mean rise over the plane
    less barrier   barriers of stage 2, and between the two kernels' ends

each Gaussian minus softmax, seed by seed: a seed has the same stage 1, minibatches and directions
under both kernels. The paper's claim asks for less than 0 everywhere. All intervals of a run hold
together with 95 % (Bonferroni): each alone with 1 - 0.05 / their number.

One trap: no barrier under either kernel is no agreement. A difference whose interval holds 0, or
an eigenvalue that did not converge, leaves its check open.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import _report
from experiments.global_convergence import verdicts
from experiments.global_convergence.verdicts import Check, Interval
from meanfield import landscape, rates

CLAIM = (
    "Around where training ends, the landscape of the Gaussian kernel is flatter and has less of "
    "a barrier than that of softmax (our reading of Song et al. 2024, Figure 4)."
)
COMPARED = 5
"""Differences of each task."""
FLAT = 1e-4
"""Barriers below this, in nats, are none: round-off of the risk."""


class Facts(NamedTuple):
    """What is measured on one task.

    Attributes:
        flatter: Checks of flatness.
        barriers: Checks of barriers.
        converged: Extreme eigenvalues that converged, of how many.
        risks: Risk at the end of stage 2, by kernel.
        outside: Greatest share of the way of stage 2 that is not in each plane, by kernel.
        minima: Local minima on the first seed's surface over each plane, by kernel.
    """

    flatter: list[Check]
    barriers: list[Check]
    converged: tuple[int, int]
    risks: tuple[Interval, Interval]
    outside: tuple[np.ndarray, np.ndarray]
    minima: tuple[np.ndarray, np.ndarray]


def confidence(tasks: int) -> float:
    """The level of one interval at which all of a run hold together with 95 %.

    Args:
        tasks: Tasks of the run.
    """
    return 1 - 0.05 / (COMPARED * tasks)


def facts(arrays: dict[str, Any], *, tasks: int) -> Facts:
    """Everything that figures and report state of one task.

    Args:
        arrays: Its record.
        tasks: Tasks of the run: the more, the wider every interval.
    """
    level = confidence(tasks)
    converged = np.asarray(arrays["converged"], bool)
    largest = np.asarray(arrays["largest"], float)
    # No logarithm of a risk that bends up nowhere; a NaN leaves the check open.
    ratio = np.log(np.where(largest > 0, largest, np.nan))
    flatter = [
        below("ln ratio of λ_max", ratio, level=level, sure=bool(converged.all())),
        below("trace", arrays["trace"], level=level),
        below("mean rise over the plane", arrays["rise"], level=level),
    ]
    barriers = [
        below("barrier of stage 2", floored(arrays["stage_barrier"]), level=level),
        below("barrier between the kernels' ends", floored(arrays["kernel_barrier"]), level=level),
    ]
    risks, outside, minima = arrays["risk"], arrays["outside"], arrays["minima"]
    return Facts(
        flatter=flatter,
        barriers=barriers,
        converged=(int(converged.sum()), converged.size),
        risks=(verdicts.over_seeds(risks[0]), verdicts.over_seeds(risks[1])),
        outside=(outside[0].max(axis=0), outside[1].max(axis=0)),
        minima=(minima[0], minima[1]),
    )


def floored(heights: np.ndarray) -> np.ndarray:
    """Barriers, those that are round-off set to 0.

    Args:
        heights: The heights.
    """
    return np.where(heights < FLAT, 0.0, heights)


def below(quantity: str, values: np.ndarray, *, level: float, sure: bool = True) -> Check:
    """Whether the Gaussian kernel has less of something than softmax.

    Args:
        quantity: What it is.
        values: Of each kernel and seed.
        level: Of the interval.
        sure: Whether the values can be trusted.
    """
    apart = np.asarray(values[1], float) - np.asarray(values[0], float)
    if not np.isfinite(apart).all():
        return Check(quantity, "< 0", "not finite in every seed", None)
    band = rates.band(apart[:, None], confidence=level)
    found = Interval(float(band.mean[0]), float(band.low[0]), float(band.high[0]))
    agrees: bool | None = None
    if sure and found.high < 0:
        agrees = True
    elif sure and found.low > 0:
        agrees = False
    return Check(quantity, "< 0", said(found) + ("" if sure else " (not converged)"), agrees)


def spectra(arrays: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Spectral densities of one task: eigenvalues [e], densities [kernel seed e], and a height.

    The height is that of a peak that holds one eigenvalue of all of them.

    Args:
        arrays: Its record.
    """
    nodes, weights = arrays["nodes"], arrays["weights"]
    width = float(nodes.max() - nodes.min()) / 150
    grid = np.linspace(nodes.min() - 4 * width, nodes.max() + 4 * width, 600)
    densities = [
        landscape.broadened_density(
            landscape.SpectralDensity(jnp.asarray(at), jnp.asarray(mass)), grid=grid, width=width
        ).density
        for at, mass in zip(np.concatenate(nodes), np.concatenate(weights), strict=True)
    ]
    single = 1 / (float(arrays["parameters"].flat[0]) * width * np.sqrt(2 * np.pi))
    return grid, np.stack(densities).reshape(*nodes.shape[:2], -1), single


def verdict(facts: dict[str, Facts]) -> tuple[bool | None, str]:
    """Whether the runs agree with the paper on every task, and why."""
    words = {True: "agrees", False: "does not agree", None: "open"}
    every = [check for found in facts.values() for check in (*found.flatter, *found.barriers)]
    parts = [
        f"{name} (loss {found.risks[0].mean:.2g} under softmax, {found.risks[1].mean:.2g} under "
        f"Gaussian): flatter {words[verdicts.joint(found.flatter)]}, less barrier "
        f"{words[verdicts.joint(found.barriers)]}"
        for name, found in facts.items()
    ]
    agreed = [sum(check.agrees is outcome for check in every) for outcome in (True, False, None)]
    return verdicts.joint(every), (
        f"{'; '.join(parts)}. Of {len(every)} paired differences {agreed[0]} are surely below 0, "
        f"{agreed[1]} surely above, {agreed[2]} open."
    )


def claimed(facts: dict[str, Facts]) -> str:
    """The claim of the paper and whether the runs agree."""
    agrees, because = verdict(facts)
    return _report.claim(CLAIM, agrees=agrees, because=because)


def said(found: Interval) -> str:
    """A number with its interval, in words."""
    mean, low, high = (f"{part:+.3g}".replace("-", "−") for part in found)
    return f"{mean} [{low}, {high}]"
