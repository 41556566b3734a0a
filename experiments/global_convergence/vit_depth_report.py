"""Report of ``vit_depth`` and the figure of its gaps, from record and facts.

One trap: nothing is decided here; what a sentence says comes from ``vit_depth_facts``.
"""

from pathlib import Path
from typing import Any

from experiments import _report
from experiments.global_convergence import vit_facts, vit_report
from experiments.global_convergence.vit_depth_facts import (
    EXPONENTS,
    LAW,
    Facts,
    nested_depth,
    verdict,
)
from experiments.global_convergence.vit_facts import NAMES, percent, signed
from experiments.global_convergence.vit_figures import BANDS
from meanfield import plots

CLAIM = (
    "In the mean-field parametrisation training follows its limit in depth within O(1/L + 1/√M) "
    "over a fixed horizon (Gao et al. 2024); at fixed particles what depends on depth is O(1/L)."
)


def draw_gaps(arrays: dict[str, Any], facts: dict[str, Facts], config: Any, path: Path) -> None:
    """Draws how far training losses are from the deepest network's, against depth.

    Args:
        arrays: The record.
        facts: What is fitted to it.
        config: The configuration.
        path: The file.
    """
    figure, axes = plots.panels(columns=len(facts), width=4.4, height=3.4)
    depths = arrays["depths"]
    for ax, (law, found) in zip(axes, facts.items(), strict=True):
        if found.fit is not None:
            expected = -EXPONENTS[config.coupling] if law == LAW else None
            plots.draw_rate(
                ax, nested_depth(depths), found.gaps, found.fit, expected=expected,
                because="the theorem",
            )  # fmt: skip
            plots.draw_legend(ax, beside=False)
        if len(facts) > 1:
            ax.set_title(f"{NAMES[law]} parametrisation", loc="left")
        ax.set(xlabel=f"nested depth L·{depths[-1]}/({depths[-1]}−L)")
        ax.set(ylabel=f"largest gap to the loss of {depths[-1]} layers")
    plots.save_figure(figure, path)


def _sizes(facts: dict[str, Facts]) -> str:
    said = []
    for law, found in facts.items():
        curves = found.curves
        open_end = "" if curves.completed else "; not every run completed"
        said.append(
            f"- {NAMES[law]}: log training loss {signed(curves.end_loss)}, training accuracy "
            f"{signed(percent(curves.end_accuracy))} and test accuracy "
            f"{signed(percent(curves.end_test))} points{open_end}."
        )
    return (
        "Deepest minus shallowest network, at the last time that all runs reached, seed by seed; "
        "the paper says nothing of it:\n\n" + "\n".join(said)
    )


def report(
    arrays: dict[str, Any], facts: dict[str, Facts], config: Any, images: Any, *,
    notes: list[str], paces: dict[str, list[float]],
) -> str:  # fmt: skip
    """The page report.md."""
    flows = config.training == "flow"
    curves = {law: found.curves for law, found in facts.items()}
    agrees, because = verdict(facts, coupling=config.coupling, training=config.training)
    drawn = {
        "path": "the same in all layers at the start, one path over depth each",
        "independent": "drawn for every layer",
    }[config.coupling]
    last = arrays["times"][max(found.last for found in curves.values())]
    sizes = f"{config.heads} heads in each layer (particles {drawn})"
    sections = [
        vit_report.setting(config, images, sizes),
        f"## The limit in depth, under {vit_report.WAYS[config.training]}",
        _report.claim(CLAIM, agrees=agrees, because=because),
        _report.figure(
            "gaps.png",
            "Largest difference over training between a network's training loss and that of the "
            "deepest of the same seed, against depth.",
        ),
        _report.figure("training.png", f"Losses and accuracies over time. {BANDS}"),
        f"## At τ = {last:g}" if flows else f"## After {last:g} epochs",
        vit_report.ends(config, arrays, curves, arrays["depths"], title="layers", paces=paces),
        vit_report.legend(config),
        _sizes(facts),
        _report.figure("ends.png", f"What networks reach against their layers. {BANDS}"),
    ]
    if flows:
        trust = f"{vit_report.balance(arrays, config)}.\n\n{vit_report.listed(notes)}"
        sections += ["## Is this the gradient flow?", trust]
    title = "ViT training as a gradient flow" if flows else "ViT training on minibatches"
    return _report.page(f"{title}, against the number of layers", sections)


def summary(arrays: dict[str, Any], facts: dict[str, Facts], config: Any) -> str:
    """A few lines for the terminal."""
    agrees, because = verdict(facts, coupling=config.coupling, training=config.training)
    lines = [f"This run {vit_report.WORDS[agrees]} the paper's claim: {because}"]
    for law, found in facts.items():
        loss = vit_facts.signed(found.curves.end_loss)
        accuracy = 100 * arrays[law]["accuracy"][-1, :, found.curves.last].mean()
        lines.append(
            f"{NAMES[law].capitalize()}: {arrays['depths'][-1]} layers reach {accuracy:.1f} % "
            f"training accuracy; log training loss, deepest minus shallowest: {loss}."
        )
    return "\n".join(lines)
