"""Numbers asked for and measured, table, figure and page of the integrators benchmark.

    ratio = cost of the best peer / cost of RKC2, each at its cheapest run of final error <= 1 %

One trap: a peer that did not finish gives a lower bound of a ratio, and is marked as one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from meanfield import plots

OURS = ("RKC2", "gradient_flow")
GOAL = 0.01
# Okabe and Ito's colours, told apart without colour vision too, and a mark for each method.
COLORS = {
    "RKC2": "#D55E00", "gradient_flow": "#222222", "Euler": "#999999", "RK4 at 1/λ": "#56B4E9",
    "Heun": "#009E73", "Bosh3": "#CC79A7", "Tsit5": "#0072B2", "Dopri8": "#E69F00",
    "Kvaerno5": "#7B3294", "LSODA": "#8C6D31", "BDF": "#66A61E",
}  # fmt: skip
MARKS = "oos^v<>DPXp"
WORDS = {True: "met", False: "missed", None: "undecided"}
ASKED = (
    ("regression_short", "gradients", 5.0, "(b) λτ ≈ 3e3: gradients"),
    ("regression_short", "seconds", 4.0, "(b) λτ ≈ 3e3: wall time"),
    ("regression_long", "gradients", 15.0, "(b) λτ ≈ 3e4: gradients"),
    ("regression_long", "seconds", 10.0, "(b) λτ ≈ 3e4: wall time"),
    ("least_squares", "gradients", 50.0, "(a) condition 1e6: gradients"),
)


class Ratio(NamedTuple):
    """Cost of the best peer over that of RKC2; `bound` where no peer finished."""

    value: float
    ours: float
    theirs: float
    peer: str
    bound: bool


def cheapest(
    rows: Iterable[dict], problem: str, method: str, cost: str, *, goal: float = GOAL
) -> dict | None:
    """The cheapest run of a method on a problem with a final error of at most the goal."""
    good = [
        row
        for row in rows
        if row["problem"] == problem and row["method"] == method
        and not row["stopped"] and row["error"] <= goal
    ]  # fmt: skip
    return min(good, key=lambda row: row[cost], default=None)


def ratio(
    rows: list[dict], problem: str, cost: str, *, ours: str = "RKC2", but: tuple = ()
) -> Ratio:
    """How much cheaper than its best peer a solver is, in one kind of cost."""
    own = cheapest(rows, problem, ours, cost)
    if own is None:
        return Ratio(np.nan, np.nan, np.nan, "none", bound=False)
    names = {r["method"] for r in rows if r["problem"] == problem} - {*OURS, *but}
    best = [(run[cost], name) for name in names if (run := cheapest(rows, problem, name, cost))]
    if best:
        theirs, peer = min(best)
        return Ratio(theirs / own[cost], own[cost], theirs, peer, bound=False)
    spent = [
        (max(r[cost] for r in rows if r["problem"] == problem and r["method"] == name), name)
        for name in names
    ]
    theirs, peer = min(((s, n) for s, n in spent if s > 0), default=(np.nan, "none"))
    return Ratio(theirs / own[cost], own[cost], theirs, peer, bound=True)


def numbers(results: dict) -> list[dict]:
    """What the issue asks for and what was measured, one entry a number."""
    rows = results["rows"]
    present = {row["problem"] for row in rows}
    found = []
    for problem, cost, least, what in ASKED:
        if problem in present:
            one = ratio(rows, problem, cost)
            entry = _entry(what, f"≥ {least:g}x", one, one.value, cost)
            # A bound below what is asked for decides nothing.
            met = None if one.bound and one.value < least else bool(one.value >= least)
            found.append(entry | {"met": met})
    if "nonstiff" in present:
        for cost in ("gradients", "seconds"):
            one = ratio(rows, "nonstiff", cost)
            value = 1 / one.value
            what = f"(d) non-stiff: {cost} over the best peer's"
            found.append(_entry(what, "≤ 1.5x", one, value, cost) | {"met": bool(value <= 1.5)})
    for problem in ("regression_short", "regression_long", "digits"):
        for row in rows:
            wanted = (problem, "gradient_flow", 1e-3)
            if (row["problem"], row["method"], row["setting"]) == wanted:
                off = row["sharpness_error"]
                found.append({
                    "what": f"{problem}: sharpness at rtol 1e-3", "asked": "within 2 %",
                    "measured": f"{100 * off:.2g} %", "met": bool(off <= 0.02),
                    "value": off, "note": "",
                })  # fmt: skip
    seconds = results["compile_seconds"]
    value = min(seconds["RKC2"]) / min(seconds["Tsit5"])
    note = f"{min(seconds['RKC2']):.2f} and {min(seconds['Tsit5']):.2f} CPU seconds, best of "
    found.append({
        "what": "compile time of gradient_flow, RKC2 over Tsit5", "asked": "≤ 1.5x",
        "measured": f"{value:.2f}x", "met": bool(value <= 1.5), "value": value,
        "note": f"{note}{len(seconds['RKC2'])}",
    })  # fmt: skip
    return found


def _entry(what: str, asked: str, one: Ratio, value: float, cost: str) -> dict:
    unit = " s" if cost == "seconds" else ""
    sign = "at least " if one.bound else ""
    stop = ", which did not finish" if one.bound else ""
    return {
        "what": what, "asked": asked, "measured": f"{sign}{value:.3g}x",
        "value": value,
        "note": f"RKC2 {one.ours:.4g}{unit}, {one.peer} {one.theirs:.4g}{unit}{stop}",
    }  # fmt: skip


def line(row: Any) -> str:
    """One solve in one line, for the terminal."""
    stop = f"  ({row.stopped} at τ = {row.reached:.3g})" if row.stopped else ""
    return (
        f"{row.problem:17s} {row.method:13s} {row.setting:7g}  error {row.error:8.2e}  "
        f"{row.gradients:8,d} gradients  {row.seconds:8.3f} s{stop}"
    )


def draw(results: dict, out_dir: Path, *, colors: dict[str, str] = COLORS) -> None:
    """Writes ``work_precision.png``: error against gradients and against seconds."""
    references = results["references"]
    figure, axes = plots.panels(rows=2, columns=len(references), width=3.4, height=3.0)
    for column, reference in enumerate(references):
        for index, cost in enumerate(("gradients", "seconds")):
            ax = axes[index * len(references) + column]
            _draw_panel(ax, results["rows"], reference["problem"], cost, colors)
            ax.set_xlabel({"gradients": "gradient equivalents", "seconds": "seconds"}[cost])
            if index == 0:
                ax.set_title(reference["title"].replace(", ", "\n", 1), fontsize=9)
            if column == 0:
                ax.set_ylabel("relative error of θ")
    # One panel may lack a method that another has; the legend is that of the fullest.
    fullest = max(axes, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
    handles, labels = fullest.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    plots.save_figure(figure, out_dir / "work_precision.png")


def _draw_panel(ax: Any, rows: list[dict], problem: str, cost: str, colors: dict[str, str]) -> None:
    ax.set(xscale="log", yscale="log")
    ax.tick_params(axis="x", which="minor", labelbottom=False)
    for mark, (method, color) in zip(MARKS, colors.items(), strict=False):
        runs = [r for r in rows if r["problem"] == problem and r["method"] == method]
        runs = sorted((r for r in runs if r[cost] > 0), key=lambda r: r["error"])
        if not runs:
            continue
        own = method in OURS
        ended = [r for r in runs if not r["stopped"]]
        ax.plot(
            [r[cost] for r in ended], [max(r["error"], 1e-9) for r in ended],
            mark + "-", color=color, linewidth=1.8 if own else 1.0,
            markersize=5 if own else 4, label=method, zorder=3 if own else 2,
        )  # fmt: skip
        short = [r for r in runs if r["stopped"] and np.isfinite(r["error"])]
        ax.plot(
            [r[cost] for r in short], [min(r["error"], 2.0) for r in short],
            "x", color=color, markersize=5,
        )  # fmt: skip
    ax.axhline(GOAL, color="#888888", linewidth=0.8, linestyle="--", zorder=1)


def summary(results: dict) -> str:
    """A few lines for the terminal."""
    return "\n".join(
        f"{WORDS[n['met']]:9s} {n['what']}: {n['measured']} (asked {n['asked']})"
        for n in results["numbers"]
    )
