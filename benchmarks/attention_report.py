"""Lines for the terminal, figure and page of the attention benchmark.

One trap: ratios of the two kinds point different ways: of other libraries' seconds over this one's
as many as may be are wanted, of this library's kernels over a softmax as few.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attention_numbers import BEST
from benchmarks.attention_peers import OURS
from benchmarks.attention_rows import COLORS, WORDS, word
from meanfield import plots
from meanfield.report import table


def line(row: dict) -> str:
    """One contender on one shape, for the terminal."""
    what = f"{row['shape']:6s} {row['dtype']} {row['kernel']:20s} {row['library']:28s}"
    if row["left_out"]:
        return f"{what} left out: {row['left_out']}"
    return (
        f"{what} {1e3 * row['seconds']:8.2f} ms, processor {1e3 * row['processor_seconds']:8.2f} "
        f"ms, error {row['error']:.1e}"
    )


def summary(results: dict) -> str:
    """A few lines for the terminal."""
    return "\n".join(
        f"{WORDS[n['met']]:6s} {n['shape']:6s} {n['dtype']} {_what(n)} over {n['other']}: "
        f"{n['ratio']:.2f} (asked {n['asked']}), of processor time {n['processor_ratio']:.2f}"
        for n in results["numbers"]
        if n["asked"]
    )


def _what(number: dict) -> str:
    return number["kernel"] + number["own"].removeprefix(OURS)


def draw(results: dict, out_dir: Path) -> None:
    """Writes ``seconds.png``: time of every contender, one panel for each shape and precision."""
    rows = results["rows"]
    settings = list(dict.fromkeys((row["shape"], row["dtype"]) for row in rows))
    figure, axes = plots.panels(rows=-(-len(settings) // 2), columns=min(2, len(settings)),
                                width=5.2, height=3.1)  # fmt: skip
    for ax, (shape, dtype) in zip(axes, settings, strict=False):
        here = [r for r in rows if (r["shape"], r["dtype"]) == (shape, dtype)]
        _draw_bars(ax, [r for r in here if not r["left_out"]])
        sizes = _sizes(results["shapes"][shape]).replace(", ", "\n", 1)
        ax.set_title(f"{sizes}, {dtype}", fontsize=10)
    for ax in axes[len(settings) :]:
        ax.set_axis_off()
    plots.save_figure(figure, out_dir / "seconds.png")


def _draw_bars(ax: Any, rows: list[dict]) -> None:
    places = np.arange(len(rows))
    middle = 1e3 * np.array([row["seconds"] for row in rows])
    ends = 1e3 * np.array([row["quartiles"] for row in rows]).T
    ax.barh(
        places, middle, xerr=np.abs(ends - middle), color=[COLORS[row["library"]] for row in rows],
        error_kw={"elinewidth": 1.0, "ecolor": "#222222"},
    )  # fmt: skip
    ax.set_yticks(places, [_label(row) for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("milliseconds per gradient")


def _label(row: dict) -> str:
    library = row["library"].removesuffix("_attention")
    return library if row["kernel"] == "softmax" else f"{library}, {row['kernel']}"


def _sizes(shape: dict) -> str:
    return (
        f"{shape['heads']} heads of {shape['head_dim']}, d = {shape['dim']}, "
        f"{shape['tokens']} tokens, batch {shape['batch']}"
    )


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    return "\n\n".join([
        "# Gradient of one attention layer: time side by side with flax, jax and PyTorch",
        _setting(config),
        "## Asked and measured",
        "Softmax: seconds of another library over those of this one, asked to be at least the "
        "number given. Gaussian: seconds of this library's Gaussian over those of its own softmax, "
        "at most the number given. Where nothing is asked, the ratio is only reported."
        + _of_gpu(results),
        _numbers(results),
        "![Milliseconds of every contender](seconds.png)\n\n*Median milliseconds of a gradient, "
        "bars from the first to the third quartile.*",
        "## Every contender",
        "Difference: the largest of an entry of the outputs or of the gradient from that by the "
        "plain formula in float64, over the largest entry of its array. Scratch: bytes that the "
        "compiled program allocates besides its arguments and outputs; PyTorch does not say.",
        _rows(results),
    ])  # fmt: skip


def _of_gpu(results: dict) -> str:
    """What else is asked on a GPU."""
    if results["device"] != "gpu":
        return ""
    peaks = ", ".join(f"{peak / 1e12:.4g} TFLOP/s in {d}" for d, peak in results["peaks"].items())
    return (
        " On long sequences: the Gaussian's seconds over those of `jax.nn.dot_product_attention` "
        "by cuDNN, at most; and cuDNN's over those of each kernel here, at least. With many heads: "
        "the seconds that the matrix products of a gradient would take at the peak measured in "
        f"this run ({peaks or 'none'}), over the layer's."
    )


def _setting(config: Any) -> str:
    return (
        "The gradient of (1/2B) Σ_b |A(T_b) − Y_b|² in the parameters of one attention layer "
        "A(T) = Σ_j S_j(T) T W_V W_O without biases: forward and backward pass, for the same heads "
        "and samples in all libraries. This library: `flow.empirical_risk` of the mean over heads, "
        'chunks of its own choice; "a device per core": the same on a mesh, samples spread over '
        "the processor's cores, each a device. einsum: the formula over all heads and samples. "
        "flax.linen and flax.nnx: their multi-head attention. `jax.nn.dot_product_attention` and "
        "PyTorch's fused attention: one merged projection before, one after. In float64 flax.nnx "
        "and `jax.nn.dot_product_attention` are left out: they take the softmax in float32. Every "
        f"contender is called twice to warm up; then {config.rounds} samples of each are taken in "
        f"turns, each filling {config.least_seconds:g} s with calls. The median is reported, and "
        "beside it the ratio of the processor's own time, which other programs disturb less."
    )


def _numbers(results: dict) -> str:
    lines = [
        [
            _sizes(results["shapes"][n["shape"]]), n["dtype"], _what(n),
            n["other"] if n["other"] != BEST else f"{BEST}: {n['library']}",
            f"{n['ratio']:.2f}", f"{n['processor_ratio']:.2f}", n["asked"], word(met=n["met"]),
            f"{n['apart']:.1e}", word(met=n["agree"]),
        ]
        for n in results["numbers"]
    ]  # fmt: skip
    header = ["shape", "precision", "kernel", "against", "ratio", "of processor time", "asked", "",
              "largest difference", ""]  # fmt: skip
    return table(header, lines)


def _rows(results: dict) -> str:
    lines = [
        [_sizes(results["shapes"][r["shape"]]), r["dtype"], r["kernel"], r["library"]]
        + (
            [f"left out: {r['left_out']}", *[""] * 5]
            if r["left_out"]
            else [
                f"{1e3 * r['seconds']:.4g}",
                f"{1e3 * r['quartiles'][0]:.4g} to {1e3 * r['quartiles'][1]:.4g}",
                f"{1e3 * r['processor_seconds']:.4g}", f"{r['error']:.1e}",
                f"{r['compile_seconds']:.2g}", f"{r['scratch_bytes'] / 2**20:.4g}",
            ]
        )
        for r in results["rows"]
    ]  # fmt: skip
    header = ["shape", "precision", "kernel", "library", "ms", "quartiles", "processor ms",
              "difference", "compile s", "scratch MiB"]  # fmt: skip
    return table(header, lines)
