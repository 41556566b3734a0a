"""The parts that the reports of ``vit_heads`` and ``vit_depth`` share: the setting, tables, trust.

One trap: steps per second are no part of the record, or two runs of one configuration would differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import _report
from experiments._images import Images
from experiments.global_convergence.vit_facts import NAMES, Curves
from experiments.global_convergence.vit_model import Cell
from experiments.global_convergence.vit_scan import Found

WAYS = {
    "flow": "the gradient flow on all images at once",
    "sgd": "SGD on minibatches",
    "adam": "Adam on minibatches",
}
WORDS = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}


def setting(config: Any, images: Images, sizes: str) -> str:
    """What was trained, how, and on what.

    Args:
        config: The configuration, with as many images as were used.
        images: All images.
        sizes: Depth and heads, in words.
    """
    laws = " and ".join(NAMES[law] for law in config.scalings)
    said = (
        f"Data: {images.name}; a random subset of {config.images:,} training images, standardised "
        f"in each channel, in {config.patch} × {config.patch} patches. {sizes}, token dimension "
        f"{config.dim}, head dimension {config.head_dim} for every network, {laws} scaling, "
        f"{config.kernel} kernel, weight decay {config.weight_decay:g}, {config.seeds} seeds that "
        "redraw the particles and share embedding and readout. The paper does not publish its "
        "patch size, dimensions, optimiser, epochs or decay: these are ours"
    )
    if config.training == "flow":
        return f"{said}, and training here is the flow, not minibatch steps."
    return f"{said}. {_steps(config)}"


def _steps(config: Any) -> str:
    rates = config.learning_rates
    each = ", ".join(
        f"{rate:g} ({NAMES[law]})" for law, rate in zip(config.scalings, rates, strict=False)
    )
    said = f"{rates[0]:g}" if len(rates) == 1 else each
    unit = {
        "sgd": "times the time scale of the law, which is L·M for mean-field particles",
        "adam": "a step of each entry, whatever the law",
    }[config.training]
    mirrors = ", half of them in a mirror," if config.flips else ""
    return (
        f"Training: {WAYS[config.training]} of {config.batch} images{mirrors} for {config.epochs} "
        f"epochs, {config.steps:,} steps; learning rate {said} ({unit}), rising over "
        f"{100 * config.warmup:g} % of the steps and then falling to 0. A seed sees the same "
        "images in the same order in every network."
    )


def ends(
    config: Any,
    arrays: Mapping[str, Any],
    facts: Mapping[str, Curves],
    sizes: np.ndarray,
    *,
    title: str,
    paces: Mapping[str, list[float]],
    further: Mapping[str, Mapping[str, list[Any]]] | None = None,
) -> str:
    """The table of what each network reached.

    Args:
        config: The configuration.
        arrays: The record.
        facts: What is fitted to the curves of each law.
        sizes: Sizes of the networks.
        title: What they number.
        paces: Steps per second of each law's networks; empty for flows.
        further: Columns of each law beside, by their titles.
    """
    flows = config.training == "flow"
    header = [title, "training loss", "training accuracy (%)", "test accuracy (%)"]
    header += ["energy balance off by (%)", "gradients", "of them for the radius"] if flows else []
    header += ["steps/s"] if paces else []
    first = next(iter((further or {"": {}}).values()))
    header += list(first)
    rows = []
    for law, found in arrays.items():
        if law not in facts:
            continue
        last = facts[law].last
        for at, size in enumerate(sizes):
            row = [NAMES[law]] if len(facts) > 1 else []
            row += [int(size), spread(found["loss"][at, :, last])]
            row += [100 * float(found[name][at, :, last].mean()) for name in _ACCURACIES]
            if flows:
                row.append(100 * float(found["balance"][at].max()))
                row += [int(found[name][at].mean()) for name in ("gradients", "products")]
            if paces:
                row.append(paces[law][at])
            row += [column[at] for column in (further or {}).get(law, {}).values()]
            row += ["–"] * (len(header) + (len(facts) > 1) - len(row))
            rows.append(row)
    return _report.table((["scaling"] if len(facts) > 1 else []) + header, rows)


_ACCURACIES = ("accuracy", "test_accuracy")


def spread(values: np.ndarray) -> str:
    """A mean over seeds, the least and the greatest.

    Args:
        values: One number a seed.
    """
    return f"{values.mean():.3g} ({values.min():.3g}–{values.max():.3g})"


def paces(config: Any, found: Found, cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Steps per second, of all seeds at once, by law; nothing of flows.

    Args:
        config: The configuration.
        found: What the training found.
        cells: The networks, in the order of the record.
    """
    if config.training == "flow":
        return {}
    return {
        law: [float(found[cell]["steps_per_second"]) for cell in cells if cell.scaling == law]
        for law in config.scalings
    }


def legend(config: Any, *, distances: bool = False) -> str:
    """What the numbers of the table are.

    Args:
        config: The configuration.
        distances: Whether it has distances.
    """
    said = f"Loss{' and distance' if distances else ''}: mean (least–greatest over seeds)."
    if config.training == "flow":
        return f"{said} Balance: the worst seed."
    return f"{said} Steps per second: all {config.seeds} seeds at once."


def balance(arrays: Mapping[str, Any], config: Any) -> str:
    """How well the flows dissipate what they lose.

    Args:
        arrays: The record.
        config: The configuration.
    """
    return (
        "The flow dissipates the energy that it loses; the two differ by at most "
        f"{worst_balance(arrays, config):.2g} % of the loss in energy. A run off by more than "
        f"{100 * config.balance_bound:g} % is named below. The balance is necessary, not sufficient"
    )


def worst_balance(arrays: Mapping[str, Any], config: Any) -> float:
    """The worst residual of the energy balance, in percent.

    Args:
        arrays: The record.
        config: The configuration.
    """
    return 100 * max(float(np.nanmax(arrays[law]["balance"])) for law in config.scalings)


def listed(notes: list[str]) -> str:
    """Notes as a list.

    Args:
        notes: What is to be said of single runs.
    """
    return "\n".join(f"- {note}" for note in notes) or "No run had anything to warn of."
