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


class Cell(NamedTuple):
    """One cell of the map.

    Attributes:
        dim: D.
        scale: Scale of W^Q and W^K.
        distance: Distance of the targets.
        success: Share of successes by kernel, with Wilson's interval at 95 %.
        lead: Share of Gaussian less that of softmax, Bonett-Price interval at the level of the map.
        winner: Which kernel that interval decides for, or None.
        out_of_reach: Share of targets certified to be out of the kernel's reach, by kernel.
    """

    dim: int
    scale: float
    distance: float
    success: dict[str, rates.Share]
    lead: rates.Share
    winner: str | None
    out_of_reach: dict[str, float]


class Facts(NamedTuple):
    """The whole map.

    Attributes:
        cells: Every cell.
        problems: Random problems of each cell.
        impossible: Successes among targets certified to be out of reach; 0 or there is a bug.
        lead: Mean over cells of the lead, draw by draw, with its interval at 95 %.
    """

    cells: list[Cell]
    problems: int
    impossible: int
    lead: rates.Share


def succeeded(arrays: dict[str, Any], kernel: str) -> np.ndarray:
    """Whether each problem succeeded: [dims, scales, distances, seeds]."""
    return arrays[kernel] <= arrays["tolerance"]


def facts(arrays: dict[str, Any]) -> Facts:
    """Everything that the figures and the report state."""
    won = {kernel: succeeded(arrays, kernel) for kernel in KERNELS}
    outside = {kernel: arrays["out of reach"][ROWS[kernel]] for kernel in KERNELS}
    axes = (arrays["dims"], arrays["scales"], arrays["distances"])
    count = int(np.prod([len(axis) for axis in axes]))
    cells = []
    for index in np.ndindex(*(len(axis) for axis in axes)):
        lead = rates.paired_difference(
            won["gaussian"][index], won["softmax"][index], confidence=1 - 0.05 / count
        )
        winner = "gaussian" if lead.low > 0 else "softmax" if lead.high < 0 else None
        cells.append(
            Cell(
                *(axis[i].item() for axis, i in zip(axes, index, strict=True)),
                success={kernel: rates.success_share(won[kernel][index]) for kernel in KERNELS},
                lead=lead,
                winner=winner,
                out_of_reach={kernel: float(outside[kernel][index].mean()) for kernel in KERNELS},
            )
        )
    # Cells share their draws: over the map, draws and not problems are what is independent.
    leads = (won["gaussian"].astype(float) - won["softmax"]).mean(axis=(0, 1, 2))
    band = rates.band(leads[:, None])
    return Facts(
        cells=cells,
        problems=won["softmax"].shape[-1],
        impossible=int(sum(np.sum(won[kernel] & outside[kernel]) for kernel in KERNELS)),
        lead=rates.Share(float(band.mean[0]), float(band.low[0]), float(band.high[0])),
    )


def verdict(found: Facts) -> tuple[bool | None, str]:
    """Whether the Gaussian kernel wins somewhere and loses nowhere, and the count of cells."""
    wins = {k: [cell for cell in found.cells if cell.winner == k] for k in KERNELS}
    several = len(found.cells) - sum(map(len, wins.values()))
    agrees: bool | None = None
    if wins["softmax"]:
        agrees = False
    elif wins["gaussian"]:
        agrees = True
    said = (
        f"of {len(found.cells)} cells the Gaussian kernel wins {len(wins['gaussian'])}, softmax "
        f"{len(wins['softmax'])}, and {several} are open (paired intervals that hold together at "
        f"95 %, {found.problems} problems a cell). Mean lead of the Gaussian kernel over the map: "
        f"{interval(found.lead)}."
    )
    return agrees, said


def interval(share: rates.Share) -> str:
    """A share in percent with its interval."""
    low, high = (f"{100 * end:.0f}".replace("-", "−") for end in (share.low, share.high))
    return f"{100 * share.value:.0f}".replace("-", "−") + f" % [{low}, {high}]"
