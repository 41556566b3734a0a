"""Lines for the terminal, figure and page of the width benchmark.

One trap: what libraries are asked of differs from network to network; a line in the figure has the
points that there are.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attention_peers import OURS
from benchmarks.attention_rows import COLORS, WORDS, word
from benchmarks.width_networks import MORE
from benchmarks.width_numbers import QUANTITIES, SCANS, memory
from meanfield import plots
from meanfield.report import table


def line(row: dict) -> str:
    """One contender on one network, for the terminal."""
    what = (
        f"{row['heads']:5d} heads, {row['depth']} layers, {row['tokens']:4d} tokens  "
        f"{row['library']:28s}"
    )
    if row["left_out"]:
        return f"{what} left out: {row['left_out']}"
    return (
        f"{what} {1e3 * row['seconds']:9.2f} ms, scratch {row['scratch_bytes'] / 2**20:8.1f} MiB, "
        f"compiled in {row['compile_seconds']:.1f} s, apart {row['error']:.1e}"
    )


def summary(results: dict) -> str:
    """A few lines for the terminal."""
    return "\n".join(
        f"{WORDS[n['met']]:6s} {n['what']}: {n['measured']} (asked {n['asked']})"
        + (f", {n['note']}" if n["note"] else "")
        for n in results["numbers"]
    )


def draw(results: dict, out_dir: Path) -> None:
    """Writes ``scaling.png``: time above memory, a column for each scan."""
    scans = [scan for scan in SCANS if any(row["scan"] == scan for row in results["rows"])]
    figure, axes = plots.panels(rows=2, columns=len(scans), width=3.6, height=2.9)
    for index, ax in enumerate(axes):
        scan, above = scans[index % len(scans)], index < len(scans)
        here = [r for r in results["rows"] if r["scan"] == scan and not r["left_out"]]
        for library in dict.fromkeys(row["library"] for row in here):
            points = [row for row in here if row["library"] == library]
            values = [row["seconds"] if above else memory(row) / 2**20 for row in points]
            width, order = (1.8, 3) if library == OURS else (1.0, 2)
            ax.plot(
                [row[scan] for row in points], values, "o-", color=COLORS[library], markersize=4,
                linewidth=width, zorder=order, label=library,
            )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel=SCANS[scan],
               ylabel="seconds per gradient" if above else "memory, MiB")  # fmt: skip
        ticks = sorted({row[scan] for row in results["rows"] if row["scan"] == scan})
        ax.set_xticks(ticks, _labels(ticks), fontsize=8)
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
                  ncols=max(2, len(scans)), fontsize=9)  # fmt: skip
    plots.save_figure(figure, out_dir / "scaling.png")


def _labels(ticks: list[int]) -> list[str]:
    """Numbers at the ticks that are far enough from the last one that has its own."""
    apart, last, found = (ticks[-1] / ticks[0]) ** (1 / 6), np.inf, []
    for tick in reversed(ticks):
        found.append(str(tick) if apart * tick < last else "")
        last = tick if found[-1] else last
    return found[::-1]


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    asked = [[n["what"], n["measured"], n["asked"], word(met=n["met"]), n["note"]]
             for n in results["numbers"]]  # fmt: skip
    flops, moved = results["peaks"]
    return "\n\n".join([
        "# Time and memory of a gradient against heads, depth and tokens",
        _setting(config),
        "## Asked and measured",
        table(["what", "measured", "asked", "", "note"], asked),
        "![Time and memory against heads, depth and tokens](scaling.png)\n\n*Median seconds of a "
        "gradient, and the memory of its program (arguments, outputs and scratch).*",
        "## Exponents",
        f"Slopes on logarithmic axes with 95 % intervals; in heads from {config.asymptotic} on, "
        "this library's times of all those widths taken in turns once more. "
        "Whether a number is met is decided by the slope alone.",
        _fits(results["fits"]),
        _growth(results["growth"]),
        "## Flow",
        _flow_setting(results["fits"], config),
        _flows(results["flows"]),
        "## Devices",
        "Gradients and flows on one of several virtual devices and on all of them, which share the "
        "cores; memory is that of each device.",
        _devices(results["devices"]),
        "## Every network",
        f"Matrix-product peak measured in this run: {flops / 1e9:.4g} GFLOP/s, memory bandwidth "
        f"{moved / 1e9:.3g} GB/s. Fraction of the peak: operations of the matrix products, none "
        "counted twice, over seconds and peak. Fraction of the bandwidth: bytes of arguments and "
        "outputs, which every gradient must move, over seconds and bandwidth. Difference: the "
        "largest of an entry of the outputs or of the gradient from flax.linen's, over the "
        "largest entry of its array.",
        _rows(results["rows"], flops, moved),
    ])  # fmt: skip


def _setting(config: Any) -> str:
    heads, depth, tokens = config.fixed
    return (
        "The gradient of (1/2B) Σ_b |T_b − Y_b|² in the heads of a residual network of attention "
        f"layers, T ← T + (1/L)(1/M) Σ_j f(T, θ_j): heads of {config.head_dim}, tokens of "
        f"dimension {config.dim}, batch {config.batch}, float32. One size grows at a time; the "
        f"others are {heads} heads, {depth} layers, {tokens} tokens. The other libraries are put "
        "about the same heads, their layers in a scan. Scratch is what the compiled program says "
        "it allocates besides arguments and outputs (`memory_analysis`): activations, and copies "
        "of the parameters; PyTorch does not say. Activation memory is what "
        f"{MORE} times the samples add to the scratch when all are handled at once. "
        "Compilation is timed apart. Contenders are called in turns; the median is reported. From "
        f"more than {config.all_up_to} heads on, flax.linen is the only other library."
    )


def _fits(found: list[dict]) -> str:
    lines = []
    for scan, library in dict.fromkeys((fit["scan"], fit["library"]) for fit in found):
        own = {f["quantity"]: f for f in found if (f["scan"], f["library"]) == (scan, library)}
        cells = [
            f"{own[q]['slope']:.3f} ({own[q]['low']:.3f} to {own[q]['high']:.3f})"
            if q in own
            else "unknown"
            for q in QUANTITIES
        ]
        lines.append([SCANS[scan], library, *cells])
    return table(["against", "library", *QUANTITIES.values()], lines)


def _growth(found: list[dict]) -> str:
    lines = [
        [each["heads"], *(1e3 * each[f"{what}seconds"] for what in ("", "processor_"))]
        for each in found
    ]
    return table(["heads", "ms, in turns", "processor ms, in turns"], lines)


def _flow_setting(fits: list[dict], config: Any) -> str:
    said = (
        f"The gradient flow of the mean square error to time {config.horizon:g}, solved by "
        "`gradient_flow` with its defaults but atol 1e-3; median seconds of solves that compile "
        "nothing. Some gradients go into the spectral radius that bounds its steps. Memory: "
        "arguments, outputs and scratch of the program that solves it, which does not grow with "
        "the time; the heads and their gradients count several times."
    )
    slopes = [fit for fit in fits if fit["quantity"] == "flow"]
    return said + "".join(
        f" Seconds per gradient of a flow grow like heads to the power {fit['slope']:.3f} "
        f"({fit['low']:.3f} to {fit['high']:.3f})."
        for fit in slopes
    )


def _flows(found: list[dict]) -> str:
    lines = [
        [each["heads"], each["gradients"], each["products"], each["gradients"] / each["horizon"],
         each["seconds"] / each["horizon"], each["processor_seconds"] / each["horizon"],
         1e3 * each["seconds"] / each["gradients"], memory(each) / 2**20,
         each["scratch_bytes"] / 2**20]
        for each in found
    ]  # fmt: skip
    header = ["heads", "gradients", "of them for the radius", "gradients per unit of time",
              "seconds per unit of time", "processor seconds per unit of time", "ms per gradient",
              "memory MiB", "of it scratch MiB"]  # fmt: skip
    return table(header, lines)


def _devices(found: list[dict]) -> str:
    lines = [
        [each["heads"], each["devices"] if which == "several" else 1,
         *(1e3 * each[which][key] for key in ("seconds", "processor_seconds")),
         memory(each[which]) / 2**20, each[f"flow {which}"]["seconds"] / each["horizon"],
         each[f"flow {which}"]["processor_seconds"] / each["horizon"],
         memory(each[f"flow {which}"]) / 2**20]
        for each in found
        for which in ("one", "several")
    ]  # fmt: skip
    header = ["heads", "devices", "ms", "processor ms", "memory MiB",
              "flow: seconds per unit of time", "processor seconds per unit of time",
              "memory MiB"]  # fmt: skip
    return table(header, lines)


def _rows(rows: list[dict], flops: float, moved: float) -> str:
    lines = []
    for r in rows:
        cells = [f"left out: {r['left_out']}", *[""] * 8]
        if not r["left_out"]:
            sizes = [r[f"{what}_bytes"] / 2**20 for what in ("scratch", "argument", "output")]
            least = (r["argument_bytes"] + r["output_bytes"]) / r["seconds"] / moved
            cells = [1e3 * r["seconds"], 1e3 * r["processor_seconds"], r["flops"] / r["seconds"]
                     / flops, least, r["compile_seconds"], *sizes, f"{r['error']:.1e}"]  # fmt: skip
        lines.append([r["heads"], r["depth"], r["tokens"], r["library"], *cells])
    header = ["heads", "layers", "tokens", "library", "ms", "processor ms", "fraction of peak",
              "fraction of bandwidth", "compile s", "scratch MiB", "arguments MiB", "outputs MiB",
              "difference"]  # fmt: skip
    return table(header, lines)
