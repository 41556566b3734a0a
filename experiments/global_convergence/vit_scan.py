"""Vision Transformers trained side by side, as flows or on minibatches, and their record.

    arrays = {"heads": [x], "times": [t], "mean_field": {"loss": [x s t], ...}, "standard": ...}

One trap: times are those of the flow or epochs, as ``config.training`` says; in two laws the times
of flows are two different ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _datasets
from experiments._images import Images
from experiments._together import side_by_side
from experiments.global_convergence import vit_flow, vit_minibatch, vit_model
from experiments.global_convergence.vit_model import Cell

Found = dict[Cell, dict[str, Any]]
CURVES = ("loss", "accuracy", "test_loss", "test_accuracy")
COUNTS = ("completed", "balance", "gradients", "products")


def opened(
    config: Any, data: Path | None, kept: Any, /, *, on_cifar: dict[str, Any]
) -> tuple[Images, Any, Images]:
    """All images, the configuration with as many as there are, and the images that are used.

    Args:
        config: The configuration.
        data: The data set; the digits if None.
        kept: What a run that is resumed has kept.
        on_cifar: Presets that are meant for CIFAR-10, by name.

    Raises:
        ValueError: If the configuration is one of these and there is no data set.
    """
    for name, preset in on_cifar.items():
        if config == preset and data is None:
            raise ValueError(
                f"the {name} preset needs --data with CIFAR-10, got none; "
                "the default preset runs on the digits"
            )
    images = _datasets.standardised(_datasets.images(data))
    kept.same("data", {images.name: images.sha256})
    return images, *vit_model.used(config, images)


def trained(
    config: Any,
    images: Images,
    cells: Sequence[Cell],
    *,
    progress: bool,
    kept: Any,
    heads: str | None = None,
) -> Found:
    """What the training of each network found, from all seeds.

    Args:
        config: The configuration.
        images: The images, all of which are used.
        cells: The networks.
        progress: Whether to show how far it is.
        kept: What a run that is resumed has kept.
        heads: The law whose flows keep their heads, if any.
    """

    def train(cell: Cell) -> dict[str, Any]:
        label = _label(config, cell) if progress else None
        if config.training == "flow":
            with_heads = heads == cell.scaling
            return vit_flow.train(config, images, cell, label=label, kept=kept, heads=with_heads)
        name = f"{vit_flow.words(cell)}, {config.training}"
        checkpoints = kept.checkpoints(name)
        return vit_minibatch.train(config, images, cell, label=label, checkpoints=checkpoints)

    # Each network compiles once; the largest takes longest.
    longest_first = sorted(cells, key=lambda cell: -cell.depth * cell.heads)
    found = side_by_side(train, longest_first, keep=kept.members("training"))
    return dict(zip(longest_first, found, strict=True))


def times(config: Any) -> np.ndarray:
    """Times of the flow, or epochs, at which all is measured.

    Args:
        config: The configuration.
    """
    if config.training == "flow":
        return vit_flow.times(config)
    return vit_minibatch.save_steps(config) * config.batch / config.images


def arrays(cells: Sequence[Cell], found: Found, /) -> dict[str, dict[str, np.ndarray]]:
    """Curves [x s t] and counts [x s] of each law.

    Args:
        cells: The networks, in the order of the record.
        found: What their training found.
    """
    laws = dict.fromkeys(cell.scaling for cell in cells)
    return {law: _stacked([found[c] for c in cells if c.scaling == law]) for law in laws}


def notes(found: Found, cells: Sequence[Cell], /) -> list[str]:
    """What is to be said of single runs.

    Args:
        found: What the training found.
        cells: The networks, in order.
    """
    return [note for cell in cells for note in found[cell].get("notes", [])]


def _stacked(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = [name for name in (*CURVES, *COUNTS) if name in rows[0]]
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _label(config: Any, cell: Cell) -> str:
    law = "" if len(config.scalings) == 1 else f"{cell.scaling}, "
    return f"{law}{cell.depth:2d} layers, {cell.heads:2d} heads"
