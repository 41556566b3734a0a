"""Fitted exponents, numbers asked for and measured, figure and page of the width benchmark.

    memory of a gradient = arguments + outputs + scratch
    activations = scratch of twice the samples - scratch of the samples

One trap: an exponent of a few points says as much as its interval; both are given.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attention_peers import LINEN, OURS
from benchmarks.attention_report import COLORS
from meanfield import plots, rates
from meanfield.report import table

SCANS = {"heads": "heads", "depth": "layers", "tokens": "tokens"}
QUANTITIES = {
    "seconds": "time",
    "processor_seconds": "processor time",
    "scratch_bytes": "scratch memory",
    "memory": "memory",
    "activations": "activation memory",
}
# Asked: shares of flax.linen's memory, exponents, and costs against one seed and one device.
LARGEST_SHARE, TIME_EXPONENT, EXPONENT_ERROR, ACTIVATION_EXPONENT = 0.25, 1.0, 0.05, 0.1
LARGEST_SEEDS, LARGEST_WORK = 2.6, 1.15
ROUND_OFF = 300 * float(np.finfo(np.float32).eps)
WORDS = {True: "met", False: "**missed**"}


def memory(row: dict) -> float:
    """Bytes of the arguments, the outputs and the scratch space of a gradient."""
    return row["argument_bytes"] + row["output_bytes"] + row["scratch_bytes"]


def fits(rows: list[dict], activations: list[dict], *, asymptotic: int) -> list[dict]:
    """Exponents of time and memory along every scan, with 95 % intervals."""
    found = []
    for scan in SCANS:
        for library in COLORS:
            points = [row for row in rows if (row["scan"], row["library"]) == (scan, library)]
            grown = [each for each in activations if (scan, each["library"]) == ("heads", library)]
            if scan == "heads":
                points = [row for row in points if row["heads"] >= asymptotic]
            for quantity in QUANTITIES:
                x = [each[scan] for each in (grown if quantity == "activations" else points)]
                y = (
                    [each["bytes"] for each in grown]
                    if quantity == "activations"
                    else [_quantity(row, quantity) for row in points]
                )
                if y and np.all(np.isfinite(y)) and min(y) > 0:
                    fit = rates.log_log_slope(x, y)._asdict()
                    found.append({"scan": scan, "library": library, "quantity": quantity, **fit})
    return found


def _quantity(row: dict, quantity: str) -> float:
    return memory(row) if quantity == "memory" else row[quantity]


def numbers(results: dict) -> list[dict]:
    """What the issue asks for and what was measured."""
    widest = max(row["heads"] for row in results["rows"] if row["scan"] == "heads")
    at_widest = {
        row["library"]: memory(row)
        for row in results["rows"]
        if (row["scan"], row["heads"]) == ("heads", widest)
    }
    share = at_widest[OURS] / at_widest[LINEN]
    found = [_number(f"memory at {widest} heads over flax.linen's", share, LARGEST_SHARE)]
    own = {
        fit["quantity"]: fit
        for fit in results["fits"]
        if (fit["scan"], fit["library"]) == ("heads", OURS)
    }
    for quantity in ("seconds", "processor_seconds"):
        fit, what = own[quantity], f"exponent of {QUANTITIES[quantity]} in heads"
        entry = _number(what, fit["slope"], TIME_EXPONENT, note=_interval(fit))
        met = bool(abs(fit["slope"] - TIME_EXPONENT) <= EXPONENT_ERROR)
        found.append(entry | {"asked": f"{TIME_EXPONENT} ± {EXPONENT_ERROR}", "met": met})
    what = "exponent of activation memory in heads"
    if "activations" in own:
        fit = own["activations"]
        found.append(_number(what, fit["slope"], ACTIVATION_EXPONENT, note=_interval(fit)))
    else:
        found.append(_number(what, np.nan, ACTIVATION_EXPONENT, note="more samples add none"))
    for each in results["seeds"]:
        what = f"{each['seeds']} seeds in one program over one seed, both on {each['devices']} "
        what += f"virtual devices, {each['heads']} heads"
        # All on several devices over one seed on one would count the gain of the devices, too.
        note = f"of processor time {each['processor_ratio']:.2f}; both on one device "
        note += f"{each['alone']:.2f}; over one seed on one device {each['mixed']:.2f}"
        found.append(_number(what, each["spread"], LARGEST_SEEDS, note=note))
    spread = results["devices"]
    what = f"{spread['devices']} virtual devices, {spread['heads']} heads: "
    work, note = spread["processor_seconds"], f"of wall time {spread['seconds']:.2f}"
    found.append(_number(what + "processor time over one's", work, LARGEST_WORK, note=note))
    found.append(_number(what + "largest difference", spread["apart"], ROUND_OFF))
    return found


def _number(what: str, value: float, most: float, *, note: str = "") -> dict:
    return {
        "what": what, "asked": f"≤ {most:.3g}", "measured": f"{value:.3g}", "value": value,
        "note": note, "met": bool(value <= most),
    }  # fmt: skip


def _interval(fit: dict) -> str:
    return f"95 % interval {fit['low']:.3f} to {fit['high']:.3f}, {fit['points']} points"


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
        f"{WORDS[n['met']].strip('*'):6s} {n['what']}: {n['measured']} (asked {n['asked']})"
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
        ax.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
                  ncols=max(2, len(scans)), fontsize=9)  # fmt: skip
    plots.save_figure(figure, out_dir / "scaling.png")


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    asked = [[n["what"], n["measured"], n["asked"], WORDS[n["met"]], n["note"]]
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
        f"Slopes on logarithmic axes with 95 % intervals; in heads from {config.asymptotic} on.",
        _fits(results["fits"]),
        "## Flow",
        f"The gradient flow of the mean square error to time {config.horizon:g}, solved by "
        "`gradient_flow` with its defaults but atol 1e-3; seconds of the second solve, which "
        "compiles nothing.",
        _flows(results["flows"]),
        "## Every network",
        f"Matrix-product peak measured in this run: {flops / 1e9:.4g} GFLOP/s, memory bandwidth "
        f"{moved / 1e9:.3g} GB/s. Fraction of the peak: operations of the matrix products, none "
        "counted twice, over seconds and peak. Fraction of the bandwidth: bytes of arguments and "
        "outputs, which every gradient must move, over seconds and bandwidth. Difference: of the "
        "gradient's squared norm from flax.linen's, relative.",
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
        "of the parameters; PyTorch does not say. Activation memory is what twice the samples add "
        "to the scratch. "
        "Compilation is timed apart. Contenders are called in turns; the median is reported."
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


def _flows(found: list[dict]) -> str:
    lines = [
        [each["heads"], each["gradients"], each["gradients"] / each["horizon"],
         each["seconds"] / each["horizon"], each["processor_seconds"] / each["horizon"],
         1e3 * each["seconds"] / each["gradients"]]
        for each in found
    ]  # fmt: skip
    header = ["heads", "gradients", "gradients per unit of time", "seconds per unit of time",
              "processor seconds per unit of time", "ms per gradient"]  # fmt: skip
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
