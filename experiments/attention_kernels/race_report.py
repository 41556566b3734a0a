"""Figure and report of two kernels trained on one task, from the curves and what they say.

One trap: nothing is decided here; what a sentence says comes from ``race_facts``.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.attention_kernels import race_facts
from experiments.attention_kernels.race_facts import Facts, percent
from experiments.attention_kernels.race_ladder import trial_steps
from experiments.attention_kernels.training import KERNELS, Training
from meanfield import plots

COLORS = {"softmax": "#31688e", "gaussian": "#d1495b"}
NAMES = {"softmax": "softmax", "gaussian": "Gaussian"}
TICKS = np.outer(10.0 ** np.arange(-6, 7), (1, 2, 5)).ravel()
"""Round numbers for an axis of losses."""
BOTH = (NAMES["softmax"], NAMES["gaussian"])


def draw(arrays: dict[str, Any], path: Path, *, baseline: tuple[str, float]) -> None:
    """Writes training loss, test loss and test accuracy against epochs."""
    figure, (train, test, accuracy) = plots.panels(columns=3, width=4.0, height=3.2)
    said, value = baseline
    accuracy.axhline(50, color="#8a8a8a", linewidth=0.9, linestyle=":", label="chance")
    accuracy.axhline(100 * value, color="#8a8a8a", linewidth=0.9, linestyle="--", label=said)
    for ax, name, scale in (
        (train, "train_loss", 1), (test, "test_loss", 1), (accuracy, "accuracy", 100),
    ):  # fmt: skip
        for index, kernel in enumerate(KERNELS):
            plots.draw_curves(
                *(ax, arrays["epochs"], scale * arrays[name][index]),
                label=NAMES[kernel],
                color=COLORS[kernel],
            )
    for ax, name in ((train, "train_loss"), (test, "test_loss")):
        ax.set(xlabel="epochs", ylabel=name.replace("train_", "training ").replace("_", " "))
        finite = arrays[name][np.isfinite(arrays[name])]
        if finite.size:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ticks = TICKS[(finite.min() <= TICKS) & (finite.max() >= TICKS)]
            # By itself a logarithmic axis has labels at the powers of ten alone, often only one.
            if 2 <= len(ticks) <= 9:
                ax.set_yticks(ticks)
            ax.yaxis.set_minor_formatter("{x:g}" if len(ticks) < 2 else "")
    accuracy.set(xlabel="epochs", ylabel="test accuracy (%)")
    plots.draw_legend(accuracy)
    plots.save_figure(figure, path)


def report(
    arrays: dict[str, Any],
    facts: Facts,
    config: Training,
    *,
    title: str,
    task: str,
    setting: str,
    baseline: tuple[str, float],
) -> str:
    """The page report.md."""
    return _report.page(
        title,
        [
            setting,
            _model(config),
            "## The claim",
            race_facts.claimed(facts, task),
            race_facts.against(facts, baseline, BOTH),
            *_diverged(arrays),
            *_end(arrays, facts, config, baseline),
            "## Learning rates",
            *_ladder(arrays, config),
        ],
    )


def summary(arrays: dict[str, Any], facts: Facts, *, baseline: tuple[str, float]) -> str:
    """A few lines for the terminal."""
    agrees, because = race_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    ends = ", ".join(f"{name} {percent(end)} %" for name, end in zip(BOTH, facts.end, strict=True))
    reached = f"Test accuracy after {arrays['steps'][facts.last]:,} steps: {ends}.\n"
    return (
        f"{reached if facts.last >= 0 else ''}{race_facts.against(facts, baseline, BOTH)}\n"
        f"This run {word} the paper's claim: {because}"
    )


def _diverged(arrays: dict[str, Any]) -> list[str]:
    runs = race_facts.diverged(arrays, BOTH)
    if not runs:
        return []
    return [
        f"Diverged, losses or answers being no longer finite: {'; '.join(runs)}. Lower "
        "--learning-rate, or the ladder of rates."
    ]


def _end(
    arrays: dict[str, Any], facts: Facts, config: Training, baseline: tuple[str, float]
) -> list[str]:
    """Figure, table and what the intervals mean; nothing where no run began."""
    last = facts.last
    if last < 0:
        return []
    header = [
        "kernel", "test accuracy (%), last quarter", "stopped early (%)", "stopped after (steps)",
        "test loss", "training loss",
    ]  # fmt: skip
    rows = [
        [
            NAMES[kernel],
            percent(facts.end[index]),
            f"{100 * facts.stopped[index].mean():.1f}",
            ", ".join(f"{step:,}" for step in facts.stops[index]),
            float(arrays["test_loss"][index, :, last].mean()),
            float(arrays["train_loss"][index, :, last].mean()),
        ]
        for index, kernel in enumerate(KERNELS)
    ]
    samples = arrays["late"].shape[-1]
    return [
        _report.figure(
            "curves.png",
            f"Lines: mean over {config.seeds} seeds; bands: least to greatest. Dotted: chance, "
            f"50 %. Dashed: {baseline[0]}, {100 * baseline[1]:.1f} %.",
        ),
        f"## After {arrays['steps'][last]:,} steps, {arrays['epochs'][last]:.3g} epochs",
        _report.table(header, rows),
        "Stopped early: test accuracy of each seed at its least loss on the "
        f"{config.held_out:,} training samples held out for validation, mean over seeds. Intervals "
        f"join the variance over {config.seeds} seeds (initial parameters and order of the data) "
        f"and over {samples:,} test samples, the same under both kernels; they leave out which "
        f"training samples were drawn. The {race_facts.FAMILY} of the claim and the baseline hold "
        f"together at 95 %, each at {100 * race_facts.LEVEL:.4g} % (Bonferroni). Log training loss "
        "averaged over training, Gaussian minus softmax, at 95 % over seeds alone: "
        f"{facts.loss.mean:+.2f} [{facts.loss.low:+.2f}, {facts.loss.high:+.2f}].",
    ]


def _ladder(arrays: dict[str, Any], config: Training) -> list[str]:
    rungs, losses = arrays["rungs"], arrays["rung_losses"]
    if len(rungs) == 1:
        return [f"Both kernels train at {rungs[0]:g}: no ladder of rates was tried."]
    header = ["kernel", *(f"{rate:g}" for rate in rungs), "chosen"]
    rows = [
        [
            NAMES[kernel],
            *("diverged" if math.isnan(loss) else f"{loss:.3f}" for loss in losses[index]),
            f"{arrays['rates'][index]:g}",
        ]
        for index, kernel in enumerate(KERNELS)
    ]
    return [
        _report.table(header, rows),
        f"Validation loss at the end of one trial of {trial_steps(config):,} steps at each rate, "
        f"on {config.held_out:,} samples of the training part that no run trains on, with a seed "
        f"that does not race. {edges(arrays)}",
    ]


def edges(arrays: dict[str, Any]) -> str:
    """Which kernels chose a rate at an edge of the ladder."""
    rungs = arrays["rungs"]
    at = {
        word: [
            name
            for name, rate in zip(BOTH, arrays["rates"], strict=True)
            if np.isclose(rate, edge, rtol=1e-9)
        ]
        for word, edge in (("lower", rungs[0]), ("upper", rungs[-1]))
    }
    said = [
        f"{' and '.join(names)} chose the rate at the {word} edge of the ladder"
        for word, names in at.items()
        if names
    ]
    if not said:
        return "Neither kernel chose a rate at an edge of the ladder."
    return f"At an edge: {', '.join(said)}; a rate beyond may do better."


def _model(config: Training) -> str:
    rule = f"SGD with momentum {config.momentum:g}" if config.optimizer == "sgd" else "Adam"
    rate = f"one cycle with {config.warmup} steps of warm-up" if config.warmup else "constant"
    rows = "rows normalised" if config.normalize else "rows not normalised"
    return (
        f"Model: {config.depth} layers, token dimension {config.dim}, {config.heads} heads of "
        f"dimension {config.head_dim}, {config.neurons} feed-forward neurons, learned positions, "
        "mean pooling, a linear readout; the standard parametrisation (plain sums over heads, "
        "neurons and layers, weights of variance 1/fan-in) without layer norm. Gaussian kernel: "
        f"c = {config.bandwidth:g}, {rows}. Training: {rule}, each kernel at its own learning rate "
        f"(below), {rate}, gradients shortened to norm {config.clip:g}, batches of {config.batch}. "
        "Each seed has the same initial parameters and batches under both kernels. The paper does "
        "not publish batch, learning rate, epochs, seeds, bandwidth or normalisation layers: these "
        "are ours."
    )
