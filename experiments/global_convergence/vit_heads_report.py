"""Report of ``vit_heads`` and the figures of the law of the heads, from record and facts.

One trap: nothing is decided here; what a sentence says comes from ``vit_heads_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.global_convergence import head_law, vit_report
from experiments.global_convergence.vit_facts import NAMES
from experiments.global_convergence.vit_figures import BANDS, time_label
from experiments.global_convergence.vit_heads_facts import LAW, Facts, HeadLaw, interval, verdict
from meanfield import plots

CLAIM = (
    "More heads reach a lower training loss and a higher training accuracy (Gao et al. 2024, "
    "Fig. 1: ViT on CIFAR-10, 6 layers, 4 to 40 heads)."
)


def draw_law(arrays: dict[str, Any], facts: HeadLaw, config: Any, out_dir: Path) -> None:
    """Draws how the law of the heads depends on their number, and the heads themselves.

    Args:
        arrays: The record.
        facts: What is fitted to it.
        config: The configuration.
        out_dir: Where the two figures go.
    """
    _draw_distance(arrays, facts, time_label(config), out_dir / "distance.png")
    _draw_clouds(arrays, out_dir / "clouds.png")


def _draw_distance(arrays: dict[str, Any], facts: HeadLaw, time: str, path: Path) -> None:
    figure, axes = plots.panels(columns=3, width=4.3, height=3.4)
    over_time, over_width, paths = axes
    heads, distance = arrays["heads"], arrays[LAW]["distance"]
    colors = plots.sequential_colors(len(heads))
    for index, (width, color) in enumerate(zip(heads, colors, strict=True)):
        plots.draw_curves(
            over_time, arrays["head_times"], distance[index], label=f"{width}", color=color
        )
    over_time.set(xlabel=time, ylabel=f"law: sliced $W_2$ to {heads[-1]} other heads")
    over_time.set_ylim(bottom=0)
    plots.draw_legend(over_time, title="heads")
    at_end = f"at τ = {arrays['head_times'][facts.last]:.3g}"
    plots.draw_rate(
        over_width,
        head_law.effective_width(heads),
        distance[:, :, facts.last].T,
        facts.distance,
        expected=facts.draws.slope,
        because="i.i.d. at τ = 0",
    )
    over_width.set(xlabel=f"effective width m·{heads[-1]}/({heads[-1]}+m)")
    over_width.set(ylabel=f"law: sliced $W_2$ {at_end}")
    plots.draw_legend(over_width, beside=False)
    if facts.gap is not None:
        gap = arrays[LAW]["gap"][:, :, facts.last].T
        plots.draw_rate(paths, head_law.nested_width(heads), gap, facts.gap, expected=-0.5)
        plots.draw_legend(paths, beside=False)
    paths.set(xlabel=f"nested width m·{heads[-1]}/({heads[-1]}−m)")
    paths.set(ylabel=f"paths: gap over way {at_end}")
    plots.save_figure(figure, path)


def _draw_clouds(arrays: dict[str, Any], path: Path) -> None:
    clouds, times = arrays[LAW]["clouds"], arrays["head_times"]
    reached = min(len(cloud) for cloud in clouds.values())
    evenly = np.linspace(times[0], times[reached - 1], 4)
    shown = np.unique(np.abs(times[:reached, None] - evenly).argmin(axis=0))
    figure, axes = plots.panels(
        rows=len(clouds), columns=len(shown), width=2.5, height=2.5, share=True
    )
    view = np.concatenate([cloud[shown].reshape(-1, 2) for cloud in clouds.values()])
    colors = plots.sequential_colors(len(clouds))
    # A record that was read back has its widths in the order of their names.
    widths = sorted(clouds, key=int)
    for row, (width, color) in enumerate(zip(widths, colors, strict=True)):
        panels = axes[row * len(shown) : (row + 1) * len(shown)]
        plots.draw_clouds(
            panels,
            [clouds[width][index] for index in shown],
            titles=[f"τ = {times[index]:.3g}" if row == 0 else "" for index in shown],
            color=color,
            view=view,
        )
        panels[0].set_ylabel(f"{width} heads\n$|W_V W_O|$")
    for ax in axes[-len(shown) :]:
        ax.set_xlabel("$|W_Q W_K^T|$")
    plots.save_figure(figure, path)


def _claims(facts: dict[str, Facts], config: Any) -> list[str]:
    said = []
    for law, found in facts.items():
        agrees, because = verdict(found, at_end=config.training != "flow")
        says = f"{NAMES[law].capitalize()} parametrisation: {CLAIM[0].lower()}{CLAIM[1:]}"
        says = says if len(facts) > 1 else CLAIM
        said.append(_report.claim(says, agrees=agrees, because=because))
    return said


def _law(facts: HeadLaw) -> str:
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


def _law_sections(arrays: dict[str, Any], facts: dict[str, Facts], config: Any) -> list[str]:
    if LAW not in facts or (law := facts[LAW].heads) is None:
        return []
    return [
        "## The law of the heads",
        _law(law),
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
    ]


def _trust(arrays: dict[str, Any], facts: dict[str, Facts], config: Any, notes: list[str]) -> str:
    finer = []
    for law, found in facts.items():
        name = f" in {NAMES[law]} scaling" if len(facts) > 1 else ""
        last = arrays[law]["loss"][0, :, found.curves.last]
        finer.append(
            f"its last training loss{name} changed by {100 * (found.solver or 0.0):.2g} %, while "
            f"seeds differ by {100 * float((last.max() - last.min()) / last.mean()):.2g} %"
        )
    return (
        f"{vit_report.balance(arrays, config)}; so the narrowest network was run once more at a "
        f"tenth of the tolerance: {'; '.join(finer)}.\n\n{vit_report.listed(notes)}"
    )


def report(
    arrays: dict[str, Any], facts: dict[str, Facts], config: Any, images: Any, *,
    notes: list[str], paces: dict[str, list[float]],
) -> str:  # fmt: skip
    """The page report.md."""
    flows = config.training == "flow"
    curves = {law: found.curves for law, found in facts.items()}
    sizes = f"{config.depth} layers"
    distances = {}
    if LAW in facts and (law := facts[LAW].heads) is not None:
        each = arrays[LAW]["distance"][:, :, law.last]
        distances = {LAW: {"sliced W₂": [vit_report.spread(row) for row in each]}}
    table = vit_report.ends(
        config, arrays, curves, arrays["heads"], title="heads", paces=paces, further=distances
    )
    reached = (
        _report.figure("ends.png", f"What networks reach against their heads. {BANDS}")
        if not flows or len(facts) > 1
        else ""
    )
    way = "under the flow" if flows else f"under {vit_report.WAYS[config.training]}"
    last = arrays["times"][max(found.last for found in curves.values())]
    sections = [
        vit_report.setting(config, images, sizes),
        f"## The claim, qualitatively, on these images and {way}",
        *_claims(facts, config),
        _report.figure("training.png", f"Losses and accuracies over time. {BANDS}"),
        f"## At τ = {last:g}" if flows else f"## After {last:g} epochs",
        table,
        vit_report.legend(config, distances=bool(distances)),
        reached,
        *_law_sections(arrays, facts, config),
    ]
    if flows:
        sections += ["## Is this the gradient flow?", _trust(arrays, facts, config, notes)]
    title = "ViT training as a gradient flow" if flows else "ViT training on minibatches"
    return _report.page(f"{title}, against the number of heads", [s for s in sections if s])


def summary(arrays: dict[str, Any], facts: dict[str, Facts], config: Any) -> str:
    """A few lines for the terminal."""
    lines = []
    for law, found in facts.items():
        agrees, because = verdict(found, at_end=config.training != "flow")
        accuracy = 100 * arrays[law]["accuracy"][-1, :, found.curves.last].mean()
        name = f"{NAMES[law].capitalize()} parametrisation: " if len(facts) > 1 else ""
        lines.append(
            f"{name}{arrays['heads'][-1]} heads reach {accuracy:.1f} % training accuracy. "
            f"This run {vit_report.WORDS[agrees]} the paper's claim: {because}"
        )
    if LAW in facts and (heads := facts[LAW].heads) is not None:
        gap = "" if heads.gap is None else f"; gap of coupled paths: slope {interval(heads.gap)}"
        slope = interval(heads.distance)
        lines.append(f"Head-law distance against effective width: slope {slope}{gap}.")
    if config.training == "flow":
        worst = vit_report.worst_balance(arrays, config)
        lines.append(f"Energy balance off by at most {worst:.2g} %.")
    return "\n".join(lines)
