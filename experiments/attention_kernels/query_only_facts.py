"""What the record of ``query_only`` says: success by kernel, and which of the two wins where.

One trap: a map of many cells holds some that differ by chance. Which kernel wins a cell is decided
at a level divided by the number of cells, so that all of them hold together at 95 %.
"""

from typing import Any, NamedTuple

import numpy as np

from meanfield import rates

KERNELS = ("softmax", "gaussian")
ROWS = {"softmax": "simplex", "gaussian": "box"}
"""What rows of weights each kernel can have at most."""


FAMILIES = ("middle", "origin", "teacher")


class Cell(NamedTuple):
    """One cell of the map.

    Attributes:
        family: Family of the targets.
        dim: D.
        scale: Scale of W^Q and W^K.
        level: Distance of the targets, or the place of their teacher among the kernels.
        problems: Problems that are counted: those that neither kernel begins below the tolerance.
        success: Share of successes by kernel, with Wilson's interval at 95 %.
        lead: Share of Gaussian less that of softmax, Bonett-Price interval at the level of the map.
        winner: Which kernel that interval decides for, or None.
        out_of_reach: Share of targets certified to be out of the kernel's reach, by kernel.
    """

    family: str
    dim: int
    scale: float
    level: float
    problems: int
    success: dict[str, rates.Share]
    lead: rates.Share
    winner: str | None
    out_of_reach: dict[str, float]


class Facts(NamedTuple):
    """The whole map.

    Attributes:
        cells: Every cell.
        drawn: Random problems drawn for each cell.
        impossible: Successes among targets certified to be out of reach; 0 or there is a bug.
        leads: By family, mean over cells of the lead, draw by draw, with its interval at 95 %.
    """

    cells: list[Cell]
    drawn: int
    impossible: int
    leads: dict[str, rates.Share]


def levels(family: str, distances: tuple[float, ...]) -> tuple[float, ...]:
    """What the cells of a family differ in: distances, or the kernel of the teacher."""
    return (0.0, 1.0) if family == "teacher" else distances


def families(arrays: dict[str, Any]) -> list[str]:
    """The families of a record."""
    return [family for family in FAMILIES if family in arrays]


def facts(arrays: dict[str, Any]) -> Facts:
    """Everything that the figures and the report state."""
    names = families(arrays)
    every = sum(arrays[name]["last"]["softmax"][..., 0].size for name in names)
    cells, leads, impossible, drawn = [], {}, 0, 0
    for name in names:
        record = arrays[name]
        won = {kernel: record["last"][kernel] <= arrays["tolerance"] for kernel in KERNELS}
        begun = [record["first"][kernel] <= arrays["tolerance"] for kernel in KERNELS]
        counted = ~(begun[0] | begun[1])
        outside = {kernel: record["out of reach"][ROWS[kernel]] for kernel in KERNELS}
        axes = (arrays["dims"], arrays["scales"], record["levels"])
        for index in np.ndindex(*(len(axis) for axis in axes)):
            at = [axis[i].item() for axis, i in zip(axes, index, strict=True)]
            here = [
                {kernel: found[kernel][index][counted[index]] for kernel in KERNELS}
                for found in (won, outside)
            ]
            cells.append(_cell(name, at, *here, confidence=1 - 0.05 / every))
        # Cells share their draws: over the map, draws and not problems are what is independent.
        lead = np.where(counted, won["gaussian"].astype(float) - won["softmax"], 0.0)
        band = rates.band(lead.mean(axis=(0, 1, 2))[:, None])
        leads[name] = rates.Share(float(band.mean[0]), float(band.low[0]), float(band.high[0]))
        impossible += int(sum(np.sum(won[kernel] & outside[kernel]) for kernel in KERNELS))
        drawn = lead.shape[-1]
    return Facts(cells=cells, drawn=drawn, impossible=impossible, leads=leads)


def _cell(
    family: str,
    at: list[Any],
    won: dict[str, np.ndarray],
    outside: dict[str, np.ndarray],
    *,
    confidence: float,
) -> Cell:
    problems, nothing = len(won["softmax"]), rates.Share(np.nan, np.nan, np.nan)
    lead = nothing
    success: dict[str, rates.Share] = dict.fromkeys(KERNELS, nothing)
    if problems >= 2:
        lead = rates.paired_difference(won["gaussian"], won["softmax"], confidence=confidence)
        success = {kernel: rates.success_share(won[kernel]) for kernel in KERNELS}
    return Cell(
        family,
        *at,
        problems=problems,
        success=success,
        lead=lead,
        winner="gaussian" if lead.low > 0 else "softmax" if lead.high < 0 else None,
        out_of_reach={
            kernel: float(outside[kernel].mean()) if problems else np.nan for kernel in KERNELS
        },
    )


def verdict(found: Facts) -> tuple[bool | None, str]:
    """Whether the Gaussian kernel wins somewhere and loses nowhere, and the count of cells."""
    wins = {k: sum(cell.winner == k for cell in found.cells) for k in KERNELS}
    agrees: bool | None = None
    if wins["softmax"]:
        agrees = False
    elif wins["gaussian"]:
        agrees = True
    said = []
    for family, lead in found.leads.items():
        winners = [cell.winner for cell in found.cells if cell.family == family]
        said.append(
            f"with targets of the {family} the Gaussian kernel wins {winners.count('gaussian')} of "
            f"{len(winners)} cells, softmax {winners.count('softmax')}, and "
            f"{winners.count(None)} are open, mean lead of the Gaussian kernel {interval(lead)}"
        )
    fewest = min(cell.problems for cell in found.cells)
    return agrees, (
        f"{'; '.join(said)} (paired intervals that hold together at 95 %, {found.drawn} problems "
        f"drawn for each cell, at least {fewest} of them begun above the tolerance and counted)."
    )


def interval(share: rates.Share) -> str:
    """A share in percent with its interval."""
    low, high = (f"{100 * end:.0f}".replace("-", "−") for end in (share.low, share.high))
    return f"{100 * share.value:.0f}".replace("-", "−") + f" % [{low}, {high}]"
