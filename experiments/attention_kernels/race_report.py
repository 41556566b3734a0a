"""Figure and report of two kernels trained on one task, from the curves and what they say.

One trap: nothing is decided here; what a sentence says comes from ``race_facts``.
"""

from pathlib import Path
from typing import Any

from experiments import _report
from experiments.attention_kernels import race_facts
from experiments.attention_kernels.race_facts import Facts, percent
from experiments.attention_kernels.training import KERNELS, Training
from meanfield import plots

COLORS = {"softmax": "#31688e", "gaussian": "#d1495b"}
NAMES = {"softmax": "softmax", "gaussian": "Gaussian"}


def draw(arrays: dict[str, Any], path: Path, *, baseline: tuple[str, float]) -> None:
    """Writes test accuracy, test loss and training loss against epochs."""
    figure, (accuracy, test, train) = plots.panels(columns=3, width=4.0, height=3.2)
    accuracy.axhline(50, color="#8a8a8a", linewidth=0.9, linestyle=":", label="chance")
    said, value = baseline
    accuracy.axhline(100 * value, color="#8a8a8a", linewidth=0.9, linestyle="--", label=said)
    drawn = ((accuracy, 100 * arrays["accuracy"]), (test, arrays["test_loss"]))
    for ax, values in (*drawn, (train, arrays["train_loss"])):
        for index, kernel in enumerate(KERNELS):
            plots.draw_curves(
                *(ax, arrays["epochs"], values[index]), label=NAMES[kernel], color=COLORS[kernel]
            )
    accuracy.set(xlabel="epochs", ylabel="test accuracy (%)")
    test.set(xlabel="epochs", ylabel="test loss", yscale="log")
    train.set(xlabel="epochs", ylabel="training loss", yscale="log")
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
    last = facts.last
    header = ["kernel", "test accuracy (%), last quarter", "best (%)", "test loss", "training loss"]
    rows = [
        [
            NAMES[kernel],
            percent(facts.end[index]),
            f"{100 * arrays['accuracy'][index, :, : last + 1].max(axis=-1).mean():.1f}",
            float(arrays["test_loss"][index, :, last].mean()),
            float(arrays["train_loss"][index, :, last].mean()),
        ]
        for index, kernel in enumerate(KERNELS)
    ]
    return _report.page(
        title,
        [
            setting,
            _model(config),
            "## The claim",
            race_facts.claimed(facts, task),
            _report.figure(
                "curves.png",
                f"Lines: mean over {config.seeds} seeds; bands: least to greatest. Dashed: "
                f"{baseline[0]}, {100 * baseline[1]:.1f} %.",
            ),
            f"## After {arrays['steps'][last]:,} steps, {arrays['epochs'][last]:.3g} epochs",
            _report.table(header, rows),
            f"Intervals are over seeds, at 95 %. The test part alone leaves "
            f"{100 * facts.error:.1f} points of standard error to an accuracy near 50 %; both "
            "kernels see the same test samples. Log training loss averaged over training, Gaussian "
            f"minus softmax: {facts.loss.mean:+.2f} [{facts.loss.low:+.2f}, {facts.loss.high:+.2f}]"
            ".",
        ],
    )


def summary(arrays: dict[str, Any], facts: Facts, *, baseline: tuple[str, float]) -> str:
    """A few lines for the terminal."""
    agrees, because = race_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    ends = ", ".join(
        f"{NAMES[kernel]} {percent(end)} %" for kernel, end in zip(KERNELS, facts.end, strict=True)
    )
    return (
        f"Test accuracy after {arrays['steps'][facts.last]:,} steps: {ends}; {baseline[0]} "
        f"{100 * baseline[1]:.1f} %.\nThis run {word} the paper's claim: {because}"
    )


def _model(config: Training) -> str:
    rule = f"SGD with momentum {config.momentum:g}" if config.optimizer == "sgd" else "Adam"
    rate = (
        f"{config.learning_rate:g}, one cycle with {config.warmup} steps of warm-up"
        if config.warmup
        else f"{config.learning_rate:g}, constant"
    )
    rows = "rows normalised" if config.normalize else "rows not normalised"
    return (
        f"Model: {config.depth} layers, token dimension {config.dim}, {config.heads} heads of "
        f"dimension {config.head_dim}, {config.neurons} feed-forward neurons, learned positions, "
        "mean pooling, a linear readout; the standard parametrisation (plain sums over heads, "
        "neurons and layers, weights of variance 1/fan-in) without layer norm. Gaussian kernel: "
        f"c = {config.bandwidth:g}, {rows}. Training: {rule}, learning rate {rate}, gradients "
        f"shortened to norm {config.clip:g}, batches of {config.batch}. Each seed has the same "
        "initial parameters and batches under both kernels. The paper does not publish batch, "
        "learning rate, epochs, seeds, bandwidth or normalisation layers: these are ours."
    )
