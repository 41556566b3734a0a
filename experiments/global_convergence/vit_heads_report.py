"""Figures and report of ``vit_heads``, from its record and the facts fitted to it.

One trap: nothing is decided here; what a sentence says comes from ``vit_heads_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.global_convergence import head_law
from experiments.global_convergence.vit_heads_facts import Facts, interval, verdict
from meanfield import plots

CLAIM = (
    "More heads reach a lower training loss and a higher training accuracy (Gao et al. 2024, "
    "Fig. 1: ViT on CIFAR-10, 6 layers, 4 to 40 heads)."
)
BANDS = "Lines: mean over seeds; bands: least to greatest."


def draw(arrays: dict[str, Any], facts: Facts, config: Any, out_dir: Path) -> None:
    """Writes the three figures."""
    time = "mean-field time τ" if config.scaling == "mean_field" else "time τ of the flow"
    _draw_training(arrays, time, out_dir / "training.png")
    _draw_distance(arrays, facts, time, out_dir / "distance.png")
    _draw_clouds(arrays, out_dir / "clouds.png")


def _draw_training(arrays: dict[str, Any], time: str, path: Path) -> None:
    figure, (loss, accuracy) = plots.panels(columns=2, width=4.6, height=3.4)
    colors = plots.sequential_colors(len(arrays["heads"]))
    for index, (width, color) in enumerate(zip(arrays["heads"], colors, strict=True)):
        label = f"{width}"
        plots.draw_curves(loss, arrays["times"], arrays["loss"][index], label=label, color=color)
        plots.draw_curves(
            accuracy, arrays["times"], 100 * arrays["accuracy"][index], label=label, color=color
        )
    loss.set(xlabel=time, ylabel="training loss", yscale="log")
    accuracy.set(xlabel=time, ylabel="training accuracy (%)")
    plots.draw_legend(accuracy, title="heads")
    plots.save_figure(figure, path)


def _draw_distance(arrays: dict[str, Any], facts: Facts, time: str, path: Path) -> None:
    figure, axes = plots.panels(columns=3, width=4.3, height=3.4)
    over_time, over_width, paths = axes
    heads, distance = arrays["heads"], arrays["distance"]
    colors = plots.sequential_colors(len(heads))
    for index, (width, color) in enumerate(zip(heads, colors, strict=True)):
        plots.draw_curves(
            over_time, arrays["head_times"], distance[index], label=f"{width}", color=color
        )
    over_time.set(xlabel=time, ylabel=f"law: sliced $W_2$ to {heads[-1]} other heads")
    over_time.set_ylim(bottom=0)
    plots.draw_legend(over_time, title="heads")
    at_end = f"at τ = {arrays['head_times'][facts.last_heads]:.3g}"
    plots.draw_rate(
        over_width,
        head_law.effective_width(heads),
        distance[:, :, facts.last_heads].T,
        facts.distance,
        expected=facts.draws.slope,
        because="i.i.d. at τ = 0",
    )
    over_width.set(xlabel=f"effective width m·{heads[-1]}/({heads[-1]}+m)")
    over_width.set(ylabel=f"law: sliced $W_2$ {at_end}")
    plots.draw_legend(over_width, beside=False)
    if facts.gap is not None:
        gap = arrays["gap"][:, :, facts.last_heads].T
        plots.draw_rate(paths, head_law.nested_width(heads), gap, facts.gap, expected=-0.5)
        plots.draw_legend(paths, beside=False)
    paths.set(xlabel=f"nested width m·{heads[-1]}/({heads[-1]}−m)")
    paths.set(ylabel=f"paths: gap over way {at_end}")
    plots.save_figure(figure, path)


def _draw_clouds(arrays: dict[str, Any], path: Path) -> None:
    clouds, times = arrays["clouds"], arrays["head_times"]
    reached = min(len(cloud) for cloud in clouds.values())
    evenly = np.linspace(times[0], times[reached - 1], 4)
    shown = np.unique(np.abs(times[:reached, None] - evenly).argmin(axis=0))
    figure, axes = plots.panels(
        rows=len(clouds), columns=len(shown), width=2.5, height=2.5, share=True
    )
    view = np.concatenate([cloud[shown].reshape(-1, 2) for cloud in clouds.values()])
    colors = plots.sequential_colors(len(clouds))
    for row, ((width, cloud), color) in enumerate(zip(clouds.items(), colors, strict=True)):
        panels = axes[row * len(shown) : (row + 1) * len(shown)]
        plots.draw_clouds(
            panels,
            [cloud[index] for index in shown],
            titles=[f"τ = {times[index]:.3g}" if row == 0 else "" for index in shown],
            color=color,
            view=view,
        )
        panels[0].set_ylabel(f"{width} heads\n$|W_V W_O|$")
    for ax in axes[-len(shown) :]:
        ax.set_xlabel("$|W_Q W_K^T|$")
    plots.save_figure(figure, path)


def _table(arrays: dict[str, Any], facts: Facts) -> str:
    header = [
        "heads", "training loss", "training accuracy (%)", "test accuracy (%)", "sliced W₂",
        "energy balance off by (%)", "gradients", "of them for the radius",
    ]  # fmt: skip
    rows = []
    for index, width in enumerate(arrays["heads"]):
        row = {name: arrays[name][index, :, facts.last] for name in _CURVES}
        rows.append(
            [
                int(width),
                _spread(row["loss"]),
                100 * float(row["accuracy"].mean()),
                100 * float(row["test_accuracy"].mean()),
                _spread(arrays["distance"][index, :, facts.last_heads]),
                100 * float(arrays["balance"][index].max()),
                int(arrays["gradients"][index].mean()),
                int(arrays["products"][index].mean()),
            ]
        )
    return _report.table(header, rows)


_CURVES = ("loss", "accuracy", "test_accuracy")


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3g} ({values.min():.3g}–{values.max():.3g})"


def _setting(config: Any, images: Any) -> str:
    used = min(config.images, len(images.x_train))
    return (
        f"Data: {images.name}; a random subset of {used} training images, standardised in each "
        f"channel, in {config.patch} × {config.patch} patches. {config.depth} layers, head "
        f"dimension {config.head_dim} for every number of heads, {config.scaling} scaling, "
        f"{config.kernel} kernel, weight decay {config.weight_decay:g}, {config.seeds} seeds that "
        "redraw the particles and share embedding and readout. The paper does not publish its "
        "patch size, dimensions, optimiser, epochs or decay: these are ours, and training here is "
        "the flow, not minibatch steps."
    )


def _law(facts: Facts) -> str:
    change = (
        "*Law.* Networks of different seeds are independent. At τ = 0, where heads are i.i.d. by "
        "construction, their sliced W₂ distance falls with the effective width at slope "
        f"{interval(facts.draws)}: for so few points this, and not −1/2, is what sampling gives. "
        f"After training the slope is {interval(facts.distance)}, a change of "
        f"{interval(facts.change)} seed by seed. The distance is mostly sampling, so this bounds "
        "how much training spreads the law with width; it does not show convergence by itself. "
        "(Seeds share reference networks, which makes these intervals slightly short.)"
    )
    if facts.gap is None:
        return change
    return change + (
        "\n\n*Paths.* The first m heads of a seed start where m of the widest network's heads "
        "start. How far their paths part, relative to the way they come, falls with the nested "
        f"width at slope {interval(facts.gap)}; the mean-field limit predicts −1/2."
    )


def _trust(arrays: dict[str, Any], facts: Facts, config: Any, notes: list[str]) -> str:
    worst = 100 * float(np.nanmax(arrays["balance"]))
    warned = (
        "\n".join(f"- {note}" for note in notes) if notes else "No run had anything to warn of."
    )
    return (
        "The flow dissipates the energy that it loses; the two differ by at most "
        f"{worst:.2g} % of the loss in energy. A run off by more than "
        f"{100 * config.balance_bound:g} % is named below. The balance is necessary, not "
        "sufficient; so the narrowest network was run once more at a tenth of the tolerance: its "
        f"last training loss changed by {100 * facts.solver:.2g} %, while seeds differ by "
        f"{100 * _relative_spread(arrays, facts):.2g} %.\n\n{warned}"
    )


def _relative_spread(arrays: dict[str, Any], facts: Facts) -> float:
    last = arrays["loss"][0, :, facts.last]
    return float((last.max() - last.min()) / last.mean())


def report(arrays: dict[str, Any], facts: Facts, config: Any, images: Any, notes: list[str]) -> str:
    """The page report.md."""
    agrees, because = verdict(facts, completed=bool(arrays["completed"].all()))
    return _report.page(
        "ViT training as a gradient flow, against the number of heads",
        [
            _setting(config, images),
            "## The claim, qualitatively, on these images and under the flow",
            _report.claim(CLAIM, agrees=agrees, because=because),
            _report.figure("training.png", f"Training loss and accuracy over time. {BANDS}"),
            f"## At τ = {arrays['times'][facts.last]:g}",
            _table(arrays, facts),
            "Loss and distance: mean (least–greatest over seeds). Balance: the worst seed.",
            "## The law of the heads",
            _law(facts),
            _report.figure(
                "distance.png",
                "Left and middle: distance of the head law to that of the widest networks of other "
                "seeds, over time and against width. Right: how far coupled paths part. " + BANDS,
            ),
            _report.figure(
                "clouds.png",
                f"Heads of layer {config.depth // 2 + 1}, all seeds: how sharply each can attend "
                "against how much it writes.",
            ),
            "## Is this the gradient flow?",
            _trust(arrays, facts, config, notes),
        ],
    )


def summary(arrays: dict[str, Any], facts: Facts) -> str:
    """A few lines for the terminal."""
    agrees, because = verdict(facts, completed=bool(arrays["completed"].all()))
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    accuracy = 100 * arrays["accuracy"][-1, :, facts.last].mean()
    gap = "" if facts.gap is None else f"; gap of coupled paths: slope {interval(facts.gap)}"
    return (
        f"{arrays['heads'][-1]} heads reach {accuracy:.1f} % training accuracy. "
        f"This run {word} the paper's claim: {because}\n"
        f"Head-law distance against effective width: slope {interval(facts.distance)}{gap}.\n"
        f"Energy balance off by at most {100 * float(np.nanmax(arrays['balance'])):.2g} %."
    )
