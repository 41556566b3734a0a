"""Figures and report of ``linear_rate``, from its record and the facts counted in it.

One trap: nothing is decided here; what a sentence says comes from ``linear_rate_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.attention_kernels import linear_rate_facts, linear_rate_tables
from experiments.attention_kernels.linear_rate_facts import AXES, KERNELS, Facts
from experiments.global_convergence import verdicts
from meanfield import plots

CLAIM = (
    "With HD ≥ Nn, the loss of one attention layer under gradient descent falls to zero at least "
    "as fast as (1 − ηα)^t, under softmax and under the Gaussian kernel (Song et al. 2024)."
)
NAMES = {"samples": "N", "dim": "D", "heads": "H"}
COLORS = {"softmax": "#31688e", "gaussian": "#d1495b"}


def draw(arrays: dict[str, Any], out_dir: Path) -> None:
    """Writes the figures."""
    _draw_value(arrays, out_dir / "curves.png")
    _draw_all(arrays, out_dir / "all.png")
    _draw_rates(arrays, out_dir / "rates.png")


def _draw_value(arrays: dict[str, Any], path: Path) -> None:
    scanned = linear_rate_facts.axes(arrays)
    figure, axes = plots.panels(rows=len(KERNELS), columns=len(scanned), width=4.4, height=3.1)
    panels = iter(axes)
    for kernel in KERNELS:
        for axis in scanned:
            ax = next(panels)
            _draw_scan(ax, arrays[kernel][axis], axis, trained="value")
            ax.set_title(f"{kernel}, scan over {NAMES[axis]}")
    plots.save_figure(figure, path)


def _draw_all(arrays: dict[str, Any], path: Path) -> None:
    figure, axes = plots.panels(rows=2, columns=len(KERNELS), width=4.8, height=3.4)
    starts = {"all": "random start", "sufficient": "start in the ball"}
    pairs = [(trained, kernel) for trained in starts for kernel in KERNELS]
    for ax, (trained, kernel) in zip(axes, pairs, strict=True):
        _draw_scan(ax, arrays[kernel]["all"], "heads", trained=trained)
        ax.set_title(f"{kernel}, {starts[trained]}, scan over H")
    plots.save_figure(figure, path)


def _draw_scan(ax: Any, scan: dict[str, Any], axis: str, *, trained: str) -> None:
    lowest = 1.0
    for i, color in enumerate(plots.sequential_colors(len(scan["ratio"]))):
        size = scan["size"][i][AXES.index(axis)]
        times, risks = scan[trained]["times"][i] + 1, scan[trained]["risks"][i, 0]
        label = f"{NAMES[axis]} = {size}: {scan['ratio'][i]:g}"
        ax.plot(times, risks / risks[0], color=color, label=label)
        lowest = min(lowest, float(np.min(risks / risks[0])))
        if scan["ratio"][i] >= 1:
            bound = scan[trained]["bounds"][i, 0] / risks[0]
            ax.plot(times, bound, color=color, linestyle="--", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="iteration + 1", ylabel="loss, first = 1")
    ax.set_ylim(max(lowest / 3, 1e-12), 3)
    plots.draw_legend(ax, title="HD/(Nn)", beside=False)


def _draw_rates(arrays: dict[str, Any], path: Path) -> None:
    figure, (rates, ends) = plots.panels(columns=2, width=4.8, height=3.8)
    lowest = 1.0
    for kernel in KERNELS:
        cells = [cell for name, cell in linear_rate_facts.cells(arrays) if name == kernel]
        wide = [cell["value"] for cell in cells if cell["ratio"] >= 1]
        predicted = np.concatenate([run["predicted"] for run in wide])
        observed = np.concatenate([run["observed"] for run in wide])
        seen = np.isfinite(observed[:, 0]) & (predicted > 0)
        lowest = min(lowest, float(predicted[seen].min(initial=1.0)))
        spread = np.abs(observed[seen, 1:] - observed[seen, :1]).T
        rates.errorbar(
            predicted[seen], observed[seen, 0], yerr=spread, fmt="o", ms=3, alpha=0.6,
            color=COLORS[kernel], elinewidth=0.5, label=kernel,
        )  # fmt: skip
        shift = 0.96 if kernel == "softmax" else 1.04
        ratio = [np.full(len(cell["pl"]), cell["ratio"] * shift) for cell in cells]
        last = [cell["value"]["risks"][:, -1] / cell["value"]["risks"][:, 0] for cell in cells]
        ends.plot(
            np.concatenate(ratio), np.maximum(np.concatenate(last), 1e-16), "o", ms=3, alpha=0.5,
            color=COLORS[kernel], label=kernel,
        )  # fmt: skip
    rates.plot([lowest, 1], [lowest, 1], color="#222222", linewidth=1, label="observed = predicted")
    rates.set(xscale="log", yscale="log", xlabel="rate predicted, ημ", ylabel="rate observed")
    ends.axvline(1.0, color="#222222", linewidth=1, linestyle=":")
    ends.set(xscale="log", yscale="log", xlabel="HD/(Nn)", ylabel="last loss, first = 1")
    ratios = sorted({float(cell["ratio"]) for _, cell in linear_rate_facts.cells(arrays)})
    ends.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    ends.set_xticks([], minor=True)
    for ax in (rates, ends):
        plots.draw_legend(ax, beside=False)
    plots.save_figure(figure, path)


def report(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """The page report.md."""
    agrees, because = linear_rate_facts.verdict(facts)
    return _report.page(
        "Linear rates of one attention layer, across HD = Nn",
        [
            _setting(config),
            "## The claim",
            _report.claim(CLAIM, agrees=agrees, because=because),
            verdicts.table(linear_rate_facts.outcome(facts)),
            _counts(facts),
            "## W^V alone",
            _report.figure(
                "curves.png",
                "Loss of the first problem of each size (solid) and its bound (1 − ημ)^t (dashed), "
                "at and beyond HD = Nn. Legends: the size scanned, and HD/(Nn).",
            ),
            _report.figure(
                "rates.png",
                "Left: the rate of every run with HD ≥ Nn against the rate its constants promise; "
                "bars from the slowest to the fastest of eight stretches. Right: the last loss.",
            ),
            _medians(facts),
            "## W^Q, W^K and W^V together",
            _together(facts),
            _report.figure("all.png", "As above, with the bound of the path, ∏ (1 − ημ_t)."),
            "## The ball test of every cell",
            _balls(facts),
            linear_rate_tables.cells(arrays),
            "## Starts that satisfy the conditions",
            linear_rate_tables.starts(arrays, config),
        ],
    )


def _setting(config: Any) -> str:
    return (
        f"N = {config.samples} samples of n = {config.tokens} Gaussian tokens in D = {config.dim} "
        f"dimensions, H = {config.heads} heads of dimension {config.head_dim}, {config.outputs} "
        f"output(s), Gaussian targets; N, D and H in turn times "
        f"{', '.join(f'{factor:g}' for factor in config.factors)}. Weights N(0, "
        f"{config.scale:g}²/fan-in), Gaussian kernel of bandwidth {config.bandwidth:g}, rows not "
        f"normalised, risk a sum over samples. {config.seeds} problems of each size. W^V alone: "
        f"{config.steps} steps of 1/β. All three: {config.steps_all} steps of 1/(2β), β at the "
        "start, from these weights and from starts that pass the ball test."
    )


def _counts(facts: Facts) -> str:
    value, every = facts.iterates["value"], facts.iterates["all"]
    return (
        f"Checked: {value:,} iterates of {facts.runs['value']} runs of W^V alone, {every:,} of "
        f"{facts.runs['all']} runs of all three from random starts and as many from others, "
        f"{facts.below} runs below the threshold. A bound that holds may promise next to "
        "nothing within a run: the loss of W^V alone fell below "
        f"{linear_rate_facts.SMALL:g} of the first in "
        + ", ".join(f"{100 * share:.0f} % at HD/(Nn) = {at:g}" for at, share in facts.small.items())
        + "."
    )


def _medians(facts: Facts) -> str:
    ratios = sorted({at for found in facts.faster.values() for at in found})
    rows = [[k, *(f"{facts.faster[k].get(at, np.nan):.3g}" for at in ratios)] for k in KERNELS]
    head = ["observed over predicted rate, median", *(f"HD/(Nn) = {at:g}" for at in ratios)]
    return _report.table(head, rows)


def _together(facts: Facts) -> str:
    shares = ", ".join(f"{kernel} {100 * facts.kept[kernel]:.0f} %" for kernel in KERNELS)
    return (
        f"Here β is that of the start, and {facts.refused['all']} of all steps broke the descent "
        "inequality; no bound is claimed from the first of them on, so it is claimed to the end in "
        f"{facts.unbroken} of {facts.runs['all']} runs. Runs with HD ≥ Nn in which "
        f"σ(B) stayed above half its first value, the condition of the theorem: {shares}."
    )


def _balls(facts: Facts) -> str:
    passed = facts.passed
    return (
        "A start that passes promises that the run stays within R of it, on a short path, with "
        "σ(B) above half, and below (1 − ημ_eff)^t f₀. W^V alone does not move B: its test passes "
        f"where B has full row rank, in {passed['value']} of {facts.runs['value']} runs. All three:"
        f" {passed['all']} of {facts.runs['all']} random starts pass, and {passed['sufficient']} "
        f"of {facts.runs['sufficient']} that were made to, by W^V = 0 and a gain in W^O. Iterates "
        f"above the bound where the test passes: {sum(facts.excess.values())}; times it was wrong "
        f"otherwise: {sum(facts.contradicted.values()) - sum(facts.excess.values())}. Those runs "
        f"went at most {facts.used:.2g} of the radius far: the test is sufficient, not necessary."
    )


def summary(facts: Facts) -> str:
    """A few lines for the terminal."""
    agrees, because = linear_rate_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    return f"This run {word} the linear rate: {because}"
