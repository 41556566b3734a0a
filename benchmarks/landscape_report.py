"""Numbers asked for and measured, figure and page of the landscape benchmark.

    ratio = median over rounds of seconds of the surface / seconds of bare evaluations in that round

One trap: a ratio of medians mixes rounds in which the machine was busy with others; rounds are
compared one by one.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.landscape_problems import BARE, LOOP, SURFACE
from meanfield import plots
from meanfield.report import table

LARGEST_RATIO = 1.1
WORDS = {True: "met", False: "missed"}
STYLES = {SURFACE: ("#D55E00", "o"), BARE: ("#0072B2", "s"), LOOP: ("#7f7f7f", "v")}


def of(rows: list[dict], problem: str, contender: str) -> dict[int, dict]:
    """The rows of one contender for one risk, by their chunks."""
    return {
        row["chunk"]: row
        for row in rows
        if (row["problem"], row["contender"]) == (problem, contender)
    }


def problems(rows: list[dict]) -> list[str]:
    """The risks, in the order of the rows."""
    return list(dict.fromkeys(row["problem"] for row in rows))


def numbers(rows: list[dict]) -> list[dict]:
    """What is asked for and what was measured, for every risk and chunk."""
    found = []
    for problem in problems(rows):
        surfaces, bare = of(rows, problem, SURFACE), of(rows, problem, BARE)
        fastest = min(row["processor_seconds"] for row in bare.values())
        for chunk, row in surfaces.items():
            ratios = {
                kind: np.divide(row[kind], bare[chunk][kind])
                for kind in ("samples", "processor_samples")
            }
            ratio = float(np.median(ratios["processor_samples"]))
            low, high = np.quantile(ratios["processor_samples"], [0.25, 0.75])
            found.append({
                "problem": problem, "chunk": chunk, "processor_ratio": ratio,
                "quartiles": [float(low), float(high)],
                "wall_ratio": float(np.median(ratios["samples"])),
                "against_fastest": row["processor_seconds"] / fastest,
                "met": bool(ratio <= LARGEST_RATIO),
            })  # fmt: skip
    return found


def line(row: dict) -> str:
    """One contender, for the terminal."""
    return (
        f"{row['problem']:12s} {row['contender']:12s} chunk {row['chunk']:3d} "
        f"{row['processor_seconds']:9.4f} s of the processor, {row['seconds']:9.4f} s"
    )


def summary(results: dict) -> str:
    """A few lines for the terminal."""
    return "\n".join(
        f"{WORDS[n['met']]:6s} {n['problem']:12s} chunk {n['chunk']:3d}: "
        f"{n['processor_ratio']:.3f} of the processor's time of the bare evaluations "
        f"(asked ≤ {LARGEST_RATIO}), {n['wall_ratio']:.3f} of the wall's"
        for n in results["numbers"]
    )


def draw(rows: list[dict], points: int, out_dir: Path) -> None:
    """Writes ``seconds.png``: processor time of a point of the surface against the chunk."""
    names = problems(rows)
    figure, axes = plots.panels(columns=len(names), width=3.8, height=3.0)
    for ax, problem in zip(axes, names, strict=True):
        chunks = sorted(of(rows, problem, SURFACE))
        for contender in (SURFACE, BARE):
            _draw_contender(ax, of(rows, problem, contender), contender, 1e6 / points)
        (loop,) = of(rows, problem, LOOP).values()
        level = loop["processor_seconds"] * 1e6 / points
        ax.axhline(level, color=STYLES[LOOP][0], linestyle="--", label=LOOP)
        ax.set(xscale="log", xlabel="points side by side", ylabel="processor µs a point")
        ax.set_ylim(bottom=0)
        ax.set_xticks(chunks, [str(chunk) for chunk in chunks])
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        ax.set_title(f"{problem}, {loop['parameters']:,} parameters")
    named = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        [named[name] for name in STYLES], list(STYLES), loc="outside lower center", ncols=3,
        frameon=False,
    )  # fmt: skip
    plots.save_figure(figure, out_dir / "seconds.png")


def _draw_contender(ax: Any, rows: dict[int, dict], contender: str, unit: float) -> None:
    color, mark = STYLES[contender]
    samples = [unit * np.array(row["processor_samples"]) for row in rows.values()]
    low, middle, high = np.array([np.quantile(s, [0.25, 0.5, 0.75]) for s in samples]).T
    ax.errorbar(
        list(rows), middle, yerr=[middle - low, high - middle], fmt=mark + "-", color=color,
        markersize=5, label=contender,
    )  # fmt: skip


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    points = config.points**2
    return "\n\n".join([
        "# A surface of the risk beside its bare evaluations",
        f"A surface of {config.points} x {config.points} points by `landscape.plane`, and the "
        f"{points:,} bare risk evaluations that it needs: the same risk, compiled, at parameters "
        "that lie ready in memory, as many of them side by side. The loop calls the compiled risk "
        f"{points:,} times from Python. {config.rounds} samples of each are taken in turns, after "
        "one call to compile and one to see how long it takes; ratios are medians over rounds.",
        "The Transformer's risk (in-context regression, "
        f"{config.samples} samples of {config.context + 1} tokens) uses every parameter many "
        f"times. The regression's ({4 * config.samples} samples) does as little work for a "
        "parameter as a risk can, so that making the points weighs most.",
        "## Asked and measured",
        f"Asked: at most {LARGEST_RATIO} times the cost of the bare evaluations, in processor "
        "time, as many points side by side. Beside it: the wall's time, and the surface against "
        "the bare evaluations at the chunk at which those are fastest.",
        _numbers(results["numbers"]),
        "![Processor time against points side by side](seconds.png)\n\n*Median processor time of a "
        "point, bars from the first to the third quartile.*",
        "## Every contender",
        _rows(results["rows"]),
    ])  # fmt: skip


def _numbers(found: list[dict]) -> str:
    header = ["risk", "side by side", "ratio", "quartiles", "of the wall's time",
              "against the fastest", ""]  # fmt: skip
    lines = [
        [
            n["problem"], n["chunk"], f"{n['processor_ratio']:.3f}",
            f"{n['quartiles'][0]:.3f} to {n['quartiles'][1]:.3f}", f"{n['wall_ratio']:.3f}",
            f"{n['against_fastest']:.3f}", WORDS[n["met"]],
        ]
        for n in found
    ]  # fmt: skip
    return table(header, lines)


def _rows(rows: list[dict]) -> str:
    header = ["risk", "contender", "side by side", "processor seconds", "seconds", "first call",
              "largest difference from the loop"]  # fmt: skip
    lines = [
        [
            row["problem"], row["contender"], row["chunk"], f"{row['processor_seconds']:.4g}",
            f"{row['seconds']:.4g}", f"{row['first_seconds']:.3g}", f"{row['error']:.1e}",
        ]
        for row in rows
    ]  # fmt: skip
    return table(header, lines)
