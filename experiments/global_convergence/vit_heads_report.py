"""Figures and report of ``vit_heads``, from its record alone.

One trap: a verdict is decided by an interval over seeds, never by the look of a curve.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import _report
from experiments.global_convergence import head_law
from meanfield import plots, rates

CLAIM = (
    "More heads reach a lower training loss and a higher training accuracy (Gao et al. 2024, "
    "Fig. 1: ViT on CIFAR-10, 6 layers, 4 to 40 heads)."
)


class Facts(NamedTuple):
    """What is fitted to the record.

    Attributes:
        last: Index of the last time that every run reached; all is compared there.
        distance: Slope of the head-law distance against the effective width, at the end.
        draws: The same at the start, where the heads are exactly i.i.d.
        loss: Slope of the final training loss against the number of heads.
    """

    last: int
    distance: rates.Fit
    draws: rates.Fit
    loss: rates.Fit


def last_common(arrays: dict[str, Any]) -> int:
    """Index of the last time that every run reached: a run that diverged ends in NaN."""
    return int(np.sum(np.isfinite(arrays["loss"]).all(axis=(0, 1)))) - 1


def draw(arrays: dict[str, Any], config: Any, out_dir: Path) -> Facts:
    """Writes the figures and gives the fits that they show."""
    heads = arrays["heads"]
    width = head_law.effective_width(heads)
    last = last_common(arrays)
    facts = Facts(
        last=last,
        distance=rates.log_log_slope(width, arrays["distance"][:, :, last].T),
        draws=rates.log_log_slope(width, arrays["distance"][:, :, 0].T),
        loss=rates.log_log_slope(heads.astype(float), arrays["loss"][:, :, last].T),
    )
    _draw_training(arrays, out_dir / "training.png")
    _draw_distance(arrays, facts, out_dir / "distance.png")
    _draw_clouds(arrays, config, out_dir / "clouds.png")
    return facts


def _draw_training(arrays: dict[str, Any], path: Path) -> None:
    figure, (loss, accuracy) = plots.panels(columns=2, width=4.6, height=3.4)
    colors = plots.sequential_colors(len(arrays["heads"]))
    for index, (width, color) in enumerate(zip(arrays["heads"], colors, strict=True)):
        label = f"{width}"
        plots.draw_curves(loss, arrays["times"], arrays["loss"][index], label=label, color=color)
        plots.draw_curves(
            accuracy, arrays["times"], 100 * arrays["accuracy"][index], label=label, color=color
        )
    loss.set(xlabel="mean-field time τ", ylabel="training loss", yscale="log")
    accuracy.set(xlabel="mean-field time τ", ylabel="training accuracy (%)")
    plots.draw_legend(accuracy, title="heads")
    plots.save_figure(figure, path)


def _draw_distance(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    figure, (over_time, over_width) = plots.panels(columns=2, width=4.6, height=3.4)
    heads, distance = arrays["heads"], arrays["distance"]
    colors = plots.sequential_colors(len(heads))
    for index, (width, color) in enumerate(zip(heads, colors, strict=True)):
        plots.draw_curves(
            over_time, arrays["times"], distance[index], label=f"{width}", color=color
        )
    over_time.set(xlabel="mean-field time τ", ylabel=f"sliced $W_2$ to {heads[-1]} other heads")
    over_time.set_ylim(bottom=0)
    plots.draw_legend(over_time, title="heads")
    plots.draw_rate(
        over_width,
        head_law.effective_width(heads),
        distance[:, :, facts.last].T,
        facts.distance,
        expected=-0.5,
    )
    over_width.set(xlabel=f"effective width m·{heads[-1]}/(m+{heads[-1]})")
    over_width.set(ylabel=f"sliced $W_2$ at τ = {arrays['times'][facts.last]:g}")
    plots.draw_legend(over_width, beside=False)
    plots.save_figure(figure, path)


def _draw_clouds(arrays: dict[str, Any], config: Any, path: Path) -> None:
    times = arrays["times"]
    shown = np.unique(np.linspace(0, len(times) - 1, 5).round().astype(int))
    clouds = arrays["clouds"]
    reached = min(len(cloud) for cloud in clouds.values())
    shown = shown[shown < reached]
    figure, axes = plots.panels(
        rows=len(clouds), columns=len(shown), width=2.3, height=2.3, share=True
    )
    view = np.concatenate([cloud[shown].reshape(-1, 2) for cloud in clouds.values()])
    colors = plots.sequential_colors(len(clouds))
    for row, ((width, cloud), color) in enumerate(zip(clouds.items(), colors, strict=True)):
        plots.draw_clouds(
            axes[row * len(shown) : (row + 1) * len(shown)],
            [cloud[index] for index in shown],
            titles=[f"τ = {times[index]:.3g}" if row == 0 else "" for index in shown],
            color=color,
            view=view,
        )
        axes[row * len(shown)].set_ylabel(f"{width} heads")
    del config
    plots.save_figure(figure, path)


def verdict(arrays: dict[str, Any], facts: Facts) -> tuple[bool | None, str]:
    """Whether the run agrees with the paper's claim, and why."""
    fit = facts.loss
    slope = (
        f"slope of log loss in log heads {fit.slope:.2f}, "
        f"95 % interval [{fit.low:.2f}, {fit.high:.2f}]"
    )
    final = arrays["accuracy"][:, :, facts.last].mean(axis=1)
    narrow, wide = arrays["heads"][0], arrays["heads"][-1]
    gain = (
        f"accuracy {100 * final[0]:.1f} % with {narrow} heads, {100 * final[-1]:.1f} % with {wide}"
    )
    because = f"at τ = {arrays['times'][facts.last]:g}, {slope}; {gain}."
    if fit.high < 0 and final[-1] >= final[0]:
        return True, because
    if fit.low > 0:
        return False, because
    return None, f"{because} The interval does not decide."


def _table(arrays: dict[str, Any], facts: Facts) -> str:
    header = [
        "heads", "training loss", "training accuracy (%)", "test accuracy (%)", "sliced W₂",
        "energy balance off by (%)", "gradients", "Hessian products", "seconds",
    ]  # fmt: skip
    rows = []
    for index, width in enumerate(arrays["heads"]):
        at_end = {
            name: arrays[name][index, :, facts.last].mean()
            for name in ("loss", "accuracy", "test_accuracy", "distance")
        }
        rows.append(
            [
                int(width),
                _spread(arrays["loss"][index, :, facts.last]),
                100 * float(at_end["accuracy"]),
                100 * float(at_end["test_accuracy"]),
                _spread(arrays["distance"][index, :, facts.last]),
                100 * float(arrays["balance"][index].max()),
                int(arrays["gradients"][index].mean()),
                int(arrays["products"][index].mean()),
                float(arrays["seconds"][index].mean()),
            ]
        )
    return _report.table(header, rows)


def _interval(fit: rates.Fit) -> str:
    return f"{fit.slope:.2f} (95 % interval [{fit.low:.2f}, {fit.high:.2f}])"


def _same_law(facts: Facts) -> str:
    if facts.distance.low <= facts.draws.high and facts.draws.low <= facts.distance.high:
        return "The two intervals overlap: the trained heads scatter like samples of one law."
    return "The intervals do not overlap: training changed how the heads scatter with width."


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3g} ({values.min():.3g}–{values.max():.3g})"


def report(arrays: dict[str, Any], facts: Facts, config: Any, images: Any, notes: list[str]) -> str:
    """The page report.md."""
    agrees, because = verdict(arrays, facts)
    rate = (
        "Networks of other seeds are independent, so heads that are samples of one limit law come "
        "closer at slope −1/2 against the effective width mM/(m+M), up to what so few points add. "
        "At τ = 0, where the heads are i.i.d. by construction, the slope is "
        f"{_interval(facts.draws)}; after training it is {_interval(facts.distance)}. "
        f"{_same_law(facts)}"
    )
    setting = (
        f"Data: {images.name}, {min(config.images, len(images.x_train))} training images in "
        f"{config.patch} × {config.patch} patches. "
        f"{config.depth} layers, head dimension {config.head_dim} for every number of heads, "
        f"{config.scaling} scaling, {config.kernel} kernel, weight decay {config.weight_decay:g}, "
        f"{config.seeds} seeds that redraw the particles and share embedding and readout. "
        "The paper does not publish its patch size, dimensions, optimiser, epochs or decay: these "
        "are ours, and training here is the flow, not minibatch steps."
    )
    worst = 100 * float(arrays["balance"].max())
    trust = (
        f"The largest energy-balance residual of all runs is {worst:.2g} %: what is shown is the "
        f"gradient flow to that accuracy in energy. The bound above which a run is named here is "
        f"{100 * config.balance_bound:g} %."
    )
    warned = (
        "\n".join(f"- {note}" for note in notes) if notes else "No run had anything to warn of."
    )
    bands = "Lines: mean over seeds; bands: least to greatest."
    return _report.page(
        "ViT training as a gradient flow, against the number of heads",
        [
            setting,
            "## The claim",
            _report.claim(CLAIM, agrees=agrees, because=because),
            _report.figure(
                "training.png", f"Training loss and accuracy over mean-field time. {bands}"
            ),
            f"## At τ = {arrays['times'][facts.last]:g}",
            _table(arrays, facts),
            "Loss and distance: mean (least–greatest over seeds). Balance: the worst seed.",
            "## The law of the heads",
            rate,
            _report.figure(
                "distance.png",
                "Distance of the head law to that of the widest networks of other seeds, over time "
                f"and against width at the end. {bands}",
            ),
            _report.figure(
                "clouds.png",
                f"Heads of layer {config.depth // 2 + 1}, all seeds, in the plane of largest "
                "variance of the widest network at the end.",
            ),
            "## Is this the gradient flow?",
            trust,
            warned,
        ],
    )


def summary(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """A few lines for the terminal."""
    agrees, because = verdict(arrays, facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    del config
    return (
        f"This run {word} the paper's claim: {because}\n"
        f"Head-law distance against effective width: slope {_interval(facts.distance)}; "
        f"i.i.d. heads, at τ = 0: {_interval(facts.draws)}; theory -0.5.\n"
        f"Energy balance off by at most {100 * float(arrays['balance'].max()):.2g} %."
    )
