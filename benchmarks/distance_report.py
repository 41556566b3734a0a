"""Numbers asked for and measured, figure and page of the distances benchmark.

    ratio = seconds of this library / seconds of the fastest other

One trap: a library that was left out for its time is not among the others.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distance_peers import OURS
from meanfield import plots
from meanfield.report import table

LONGEST_RATIO = 1.2
# Exact and sliced are one number for all; the Sinkhorn divergences stop at their tolerance.
AGREEMENT = {"exact": 1e-10, "sliced": 1e-10, "sinkhorn": 1e-4}
TITLES = {"exact": "Exact W₂", "sliced": "Sliced SW₂", "sinkhorn": "Sinkhorn divergence"}
# Okabe and Ito's colours, told apart without colour vision too, and a mark for each library.
STYLES = {
    OURS: ("#D55E00", "o"),
    "POT": ("#0072B2", "s"),
    "ott-jax": ("#009E73", "^"),
    "ott-jax, kernels": ("#CC79A7", "v"),
}
WORDS = {True: "met", False: "missed"}


def settings(rows: list[dict]) -> list[tuple[str, int, int]]:
    """Kind, dimension and size of every comparison, in the order of the rows."""
    return list(dict.fromkeys((row["kind"], row["dim"], row["size"]) for row in rows))


def of_setting(rows: list[dict], setting: tuple[str, int, int]) -> dict[str, dict]:
    """The rows of one comparison by library, without those that were left out."""
    return {
        row["library"]: row
        for row in rows
        if (row["kind"], row["dim"], row["size"]) == setting and not row["left_out"]
    }


def numbers(rows: list[dict]) -> list[dict]:
    """What the issue asks for and what was measured: ratio and agreement of every comparison."""
    found = []
    for setting in settings(rows):
        kind, dim, size = setting
        present = of_setting(rows, setting)
        others = {name: row for name, row in present.items() if name != OURS}
        fastest = min(others, key=lambda name: others[name]["seconds"])
        ours, theirs = present[OURS]["seconds"], others[fastest]["seconds"]
        # A NaN must come through, which max() would lose.
        apart = float(np.max([row["error"] for row in present.values()]))
        ratio = ours / theirs
        found.append({
            "kind": kind, "dim": dim, "size": size, "ratio": ratio, "fastest": fastest,
            "seconds": ours, "fastest_seconds": theirs, "fast": bool(ratio <= LONGEST_RATIO),
            "processor_ratio": _processor_ratio(present), "apart": apart,
            "agree": bool(apart <= AGREEMENT[kind]),
        })  # fmt: skip
    return found


def _processor_ratio(present: dict[str, dict]) -> float:
    taken = {name: row["processor_seconds"] for name, row in present.items()}
    return taken.pop(OURS) / min(taken.values())


def line(row: dict) -> str:
    """One library on one pair of clouds, for the terminal."""
    what = f"{row['kind']:8s} dim {row['dim']:3d}  n {row['size']:5d}  {row['library']:16s}"
    if row["left_out"]:
        return f"{what} left out: {row['left_out']}"
    return f"{what} {row['seconds']:9.4f} s  {row['value']:.10g}  error {row['error']:.1e}"


def summary(results: dict) -> str:
    """A few lines for the terminal."""
    return "\n".join(
        f"{WORDS[n['fast'] and n['agree']]:6s} {n['kind']:8s} dim {n['dim']:3d}  n {n['size']:5d}: "
        f"{n['ratio']:.2f} of {n['fastest']} (asked ≤ {LONGEST_RATIO}), apart {n['apart']:.1e}"
        for n in results["numbers"]
    )


def draw(rows: list[dict], out_dir: Path) -> None:
    """Writes ``seconds.png``: time against size, one panel for each distance and dimension."""
    groups = list(dict.fromkeys((row["kind"], row["dim"]) for row in rows))
    dims = len({dim for _, dim in groups})
    figure, axes = plots.panels(rows=dims, columns=len(groups) // dims, width=3.4, height=2.8)
    # Kinds across, dimensions down.
    ordered = sorted(groups, key=lambda group: [dim for _, dim in groups].index(group[1]))
    for ax, (kind, dim) in zip(axes, ordered, strict=True):
        ax.set(xscale="log", yscale="log", xlabel="points in each cloud", ylabel="seconds")
        ax.set_title(f"{TITLES[kind]}, d = {dim}", fontsize=10)
        sizes = sorted({row["size"] for row in rows})
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        for library, (color, mark) in STYLES.items():
            _draw_library(ax, [r for r in rows if (r["kind"], r["dim"]) == (kind, dim)
                               and r["library"] == library and not r["left_out"]],
                          color=color, mark=mark)  # fmt: skip
    fullest = max(axes, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
    figure.legend(*fullest.get_legend_handles_labels(), loc="outside right center", frameon=False)
    plots.save_figure(figure, out_dir / "seconds.png")


def _draw_library(ax: Any, rows: list[dict], *, color: str, mark: str) -> None:
    if not rows:
        return
    sizes, seconds = [r["size"] for r in rows], np.array([r["seconds"] for r in rows])
    ends = np.array([r["quartiles"] for r in rows]).T
    ours = rows[0]["library"] == OURS
    ax.errorbar(
        sizes, seconds, yerr=np.abs(ends - seconds), fmt=mark + "-", color=color, markersize=5,
        linewidth=1.8 if ours else 1.0, zorder=3 if ours else 2, label=rows[0]["library"],
    )  # fmt: skip


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    return "\n\n".join([
        "# Distances between clouds: time side by side with POT and ott-jax",
        _setting(config),
        "## Asked and measured",
        f"Asked: at most {LONGEST_RATIO} times the seconds of the fastest other library, and the "
        "same answer: within 1e-10 for the exact and sliced distances, 1e-4 for the Sinkhorn "
        "divergence, whose iterations stop at the tolerance.",
        _numbers(results["numbers"]),
        "![Seconds against points](seconds.png)\n\n*Median seconds of a call against the points "
        "in each cloud, bars from the first to the third quartile.*",
        "## Every library",
        _rows(results["rows"]),
    ])  # fmt: skip


def _setting(config: Any) -> str:
    return (
        "Two normal clouds of one size, the second shifted by 0.3 in each coordinate and stretched "
        "by 1.2, in double precision. A library is called once to compile and once to see how long "
        f"it takes; then {config.rounds} samples of each are taken in turns, the slow ones less "
        f"often. A sample fills {config.least_seconds:g} s with calls; the median is reported, and "
        "beside it the ratio of the processor's own time, which other programs disturb less. "
        "Exact: `wasserstein`, POT's network simplex on its own costs, ott-jax's Hungarian "
        f"algorithm. Sliced: {config.projections} directions, the same for all; only this library "
        "draws them in each call. Sinkhorn: `sinkhorn_divergence` with its default epsilon, which "
        "the others are given; POT's kernel iterations, three times, with the entropy added to its "
        "loss; ott-jax in the log domain (its default) and with kernels. All stop at a marginal "
        f"error of {config.tolerance:g}, summed over the points."
    )


def _numbers(found: list[dict]) -> str:
    lines = [
        [
            TITLES[n["kind"]], n["dim"], n["size"], f"{n['seconds']:.4g}",
            f"{n['fastest_seconds']:.4g} ({n['fastest']})", f"{n['ratio']:.2f}",
            f"{n['processor_ratio']:.2f}", _word(met=n["fast"]), f"{n['apart']:.1e}",
            _word(met=n["agree"]),
        ]
        for n in found
    ]  # fmt: skip
    header = ["distance", "dimension", "points", "seconds", "fastest other", "ratio",
              "of processor time", "", "largest relative difference", ""]  # fmt: skip
    return table(header, lines)


def _word(*, met: bool) -> str:
    return WORDS[met] if met else f"**{WORDS[met]}**"


def _rows(rows: list[dict]) -> str:
    lines = [
        [TITLES[r["kind"]], r["dim"], r["size"], r["library"]]
        + (
            [f"left out: {r['left_out']}", *[""] * 5]
            if r["left_out"]
            else [
                f"{r['value']:.10g}", f"{r['error']:.1e}", f"{r['seconds']:.4g}",
                f"{r['quartiles'][0]:.4g} to {r['quartiles'][1]:.4g}", r["samples"],
                f"{r['first_seconds']:.3g}",
            ]
        )
        for r in rows
    ]  # fmt: skip
    header = ["distance", "dimension", "points", "library", "value", "error", "seconds",
              "quartiles", "samples", "first call"]  # fmt: skip
    return table(header, lines)
