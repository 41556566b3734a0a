"""What the record of ``linear_rate`` says of the bounds and of the threshold HD = Nn.

One trap: a rate is observed only where the risk goes to 0; below the threshold it ends at what no
W^V can fit, and its rate there is none.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import verdicts
from experiments.global_convergence.verdicts import Check

AXES = ("samples", "dim", "heads")
TRAINED = ("value", "all", "sufficient")
KERNELS = ("softmax", "gaussian")
SMALL = 1e-6
"""A loss, relative to the first, that counts as fitted."""


class Facts(NamedTuple):
    """Counts and extremes over all sizes, kernels and seeds.

    Attributes:
        runs: Runs of W^V alone, of all three, and of all three from starts that pass the ball test.
        iterates: Iterates that were checked, of each.
        violations: Those above their bound, of each.
        refused: Steps that broke the descent inequality, of each.
        slower: The largest predicted rate over the observed one, W^V alone, HD >= Nn.
        faster: The median of observed over predicted, by kernel, at and beyond the threshold.
        deficient: Runs at or beyond HD = Nn whose B has no full row rank.
        fitted: Runs below HD = Nn whose risk fell below what no W^V can fit.
        below: Runs below the threshold.
        passed: Runs whose start passes the ball test, of each.
        excess: Iterates of those above (1 - eta mu_eff)^t f_0, of each.
        contradicted: How often a test that passes was wrong, in place or in risk, of each.
        used: The largest share of the radius that a run went whose start passes.
        kept: Share of the runs of all three from random starts whose sigma(B) stayed above half.
        unbroken: Runs of all three in which every step kept the descent inequality.
        small: By HD/(Nn) >= 1, the share of runs of W^V alone that ended below SMALL.
    """

    runs: dict[str, int]
    iterates: dict[str, int]
    violations: dict[str, int]
    refused: dict[str, int]
    slower: float
    faster: dict[str, dict[float, float]]
    deficient: int
    fitted: int
    below: int
    passed: dict[str, int]
    excess: dict[str, int]
    contradicted: dict[str, int]
    used: float
    kept: dict[str, float]
    unbroken: int
    small: dict[float, float]


def axes(arrays: dict[str, Any]) -> list[str]:
    """What was scanned."""
    return [axis for axis in AXES if axis in arrays[KERNELS[0]]]


def cells(arrays: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every size once, with its kernel: the size in the middle stands in all three scans."""
    found = {}
    for kernel in KERNELS:
        for axis in axes(arrays):
            scan = arrays[kernel][axis]
            for i in range(len(scan["ratio"])):
                cell = _at(scan, i)
                found[kernel, tuple(cell["size"].tolist())] = cell
    return [(kernel, cell) for (kernel, _), cell in found.items()]


def together(arrays: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every size at which all three were trained, with its kernel."""
    return [
        (kernel, _at(arrays[kernel]["all"], i))
        for kernel in KERNELS
        for i in range(len(arrays[kernel]["all"]["ratio"]))
    ]


def _at(tree: Any, index: int) -> Any:
    return {k: _at(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}


def facts(arrays: dict[str, Any]) -> Facts:
    """Everything that the figures and the report state."""
    every = cells(arrays)
    wide = [(kernel, cell) for kernel, cell in every if cell["ratio"] >= 1]
    narrow = [cell for _, cell in every if cell["ratio"] < 1]
    quotients = np.concatenate(
        [cell["value"]["predicted"] / cell["value"]["observed"][:, 0] for _, cell in wide]
    )
    runs = {
        "value": [cell["value"] for _, cell in every],
    } | {t: [cell[t] for _, cell in together(arrays)] for t in TRAINED[1:]}
    last = [cell["value"]["risks"][:, -1] for cell in narrow]
    return Facts(
        runs={t: sum(len(run["violations"]) for run in runs[t]) for t in TRAINED},
        iterates={
            t: sum(len(run["violations"]) * int(run["times"][-1] + 1) for run in runs[t])
            for t in TRAINED
        },
        violations={t: int(sum(run["violations"].sum() for run in runs[t])) for t in TRAINED},
        refused={t: int(sum(run["refused"].sum() for run in runs[t])) for t in TRAINED},
        passed={t: int(sum(run["passes"].sum() for run in runs[t])) for t in TRAINED},
        excess={
            t: int(sum(run["excess"][run["passes"]].sum() for run in runs[t])) for t in TRAINED
        },
        contradicted={t: int(sum(run["contradicted"].sum() for run in runs[t])) for t in TRAINED},
        used=max(
            float(np.max(run["used"][run["passes"]], initial=0)) for run in runs["sufficient"]
        ),
        slower=float(np.nanmax(quotients)),
        faster={kernel: _faster(wide, kernel) for kernel in KERNELS},
        deficient=int(sum(np.sum(c["rank"] < c["rows"]) for _, c in wide)),
        fitted=int(
            sum(
                np.sum(risk < c["unfitted"] * (1 - 1e-9))
                for risk, c in zip(last, narrow, strict=True)
            )
        ),
        below=sum(len(risk) for risk in last),
        kept={k: float(np.mean(arrays[k]["all"]["all"]["sigma"] >= 0.5)) for k in KERNELS},
        unbroken=int(sum(np.sum(run["refused"] == 0) for run in runs["all"])),
        small=_small(wide),
    )


def _small(wide: list[tuple[str, dict[str, Any]]]) -> dict[float, float]:
    found: dict[float, list[np.ndarray]] = {}
    for _, cell in wide:
        risks = cell["value"]["risks"]
        found.setdefault(float(cell["ratio"]), []).append(risks[:, -1] < SMALL * risks[:, 0])
    return {at: float(np.mean(np.concatenate(rows))) for at, rows in sorted(found.items())}


def _faster(wide: list[tuple[str, dict[str, Any]]], kernel: str) -> dict[float, float]:
    found: dict[float, list[np.ndarray]] = {}
    for name, cell in wide:
        if name == kernel:
            ratio = cell["value"]["observed"][:, 0] / cell["value"]["predicted"]
            found.setdefault(float(cell["ratio"]), []).append(ratio)
    return {at: float(np.nanmedian(np.concatenate(rows))) for at, rows in sorted(found.items())}


def outcome(found: Facts) -> list[Check]:
    """Whether bounds hold, and whether the threshold is where the theorem puts it."""
    at_most = verdicts.at_most
    return [
        at_most("iterates above the bound, W^V alone", found.violations["value"], 0),
        at_most("steps at 1/β that break the descent inequality", found.refused["value"], 0),
        at_most(
            "iterates above the bound of the path, all three",
            found.violations["all"] + found.violations["sufficient"],
            0,
        ),
        at_most(
            "iterates above (1 − ημ_eff)^t f₀ where the ball test passes",
            sum(found.excess.values()),
            0,
        ),
        at_most(
            "times a ball test that passes was wrong on a run",
            sum(found.contradicted.values()),
            0,
        ),
        at_most("largest predicted over observed rate", found.slower, 1.0 + 1e-9),
        at_most("runs with HD ≥ Nn and B not of full row rank", found.deficient, 0),
        at_most("runs with HD < Nn that fit what W^V cannot", found.fitted, 0),
    ]


def verdict(found: Facts) -> tuple[bool | None, str]:
    """Whether all of it agrees, and why."""
    checks = outcome(found)
    return verdicts.joint(checks), verdicts.because(checks)
