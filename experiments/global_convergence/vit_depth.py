r"""Training of a Vision Transformer against its number of layers, at a fixed number of heads.

In the mean-field parametrisation a network of L layers is a scheme of step 1/L for an ordinary
differential equation over depth, at every time of training:

    |R_L(tau) - R_inf(tau)| = O(1/L + 1/sqrt(M))     over a fixed horizon,

and gradient descent in its time scale L M follows. In the standard parametrisation, ``--scalings
mean_field standard``, there is no such limit, and without a layer norm deep plain sums start at
losses that SGD does not survive; Adam does. The paper trained 6 layers only; this scan is our own.

One trap: networks of several depths have the same particles only if these are paths over depth,
the default; drawn independently for every layer they differ by fluctuations as well.

References:
    Gao et al. 2024, arXiv 2410.23610, Section 4 (1/L + 1/sqrt(M)).
    Chizat 2025, arXiv 2509.10167 (1/sqrt(LM) with independent draws).
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments._cli import Outcome
from experiments.global_convergence import (
    vit_depth_facts,
    vit_depth_report,
    vit_figures,
    vit_model,
    vit_report,
    vit_scan,
)
from experiments.global_convergence.vit_model import Cell
from meanfield import checks
from meanfield.kept import NOTHING, Kept

SUMMARY = "ViT on images, by flow or on minibatches: training against depth and its limit."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(vit_model.Training):
    """Networks of several depths, as a gradient flow or on minibatches."""

    depths: tuple[int, ...] = (2, 4, 6, 8, 12, 16, 24)
    """Layers of each network, increasing."""
    heads: int = 8
    """Heads in each layer."""
    coupling: Literal["path", "independent"] = "path"
    """Particles over depth: the same in all layers at the start, or drawn for every layer."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        super().__post_init__()
        checks.count("heads", self.heads)
        for depth in self.depths:
            checks.count("depths", depth)
        if len(self.depths) < 4 or np.any(np.diff(self.depths) <= 0):
            raise ValueError(
                f"depths must be four or more increasing numbers, got {self.depths}: a rate needs "
                "three depths below the deepest"
            )


PRESETS = {
    "tiny": Config(
        depths=(1, 2, 3, 4), heads=2, seeds=2, dim=8, head_dim=2, training="sgd",
        learning_rates=(0.1,), images=20, test_images=20, batch=10, epochs=2, saves=3,
    ),
    "default": Config(),
    "paper": Config(
        heads=16, training="sgd", learning_rates=(0.3,), neurons_per_head=4, dim=64, head_dim=16,
        images=50_000, test_images=10_000, measured=10_000, batch=128, epochs=60, saves=61,
        flips=True,
    ),
}  # fmt: skip


def run(
    config: Config, *, data: Path | None, out_dir: Path, progress: bool, kept: Kept = NOTHING
) -> Outcome:
    """Trains every depth from every seed, measures, draws and reports."""
    on_cifar = {name: PRESETS[name] for name in ("paper",)}
    images, chosen, mine = vit_scan.opened(config, data, kept, on_cifar=on_cifar)
    cells = [
        Cell(law, depth, config.heads, config.coupling)
        for law in config.scalings
        for depth in config.depths
    ]
    found = vit_scan.trained(chosen, mine, cells, progress=progress, kept=kept)
    arrays = {"depths": np.array(config.depths), "times": vit_scan.times(chosen)}
    arrays |= vit_scan.arrays(cells, found)
    facts = vit_depth_facts.facts(arrays, config.scalings)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=vit_depth_report.report(
            arrays, facts, chosen, images, notes=vit_scan.notes(found, cells),
            paces=vit_report.paces(chosen, found, cells),
        ),
        summary=vit_depth_report.summary(arrays, facts, config),
        data_checksums={images.name: images.sha256},
        seeds=list(range(1, config.seeds + 1)),
    )  # fmt: skip


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws every figure of a run from its record and configuration."""
    facts = vit_depth_facts.facts(arrays, config.scalings)
    curves = {law: found.curves for law, found in facts.items()}
    depths = arrays["depths"]
    vit_figures.draw_training(arrays, config, depths, "layers", out_dir / "training.png")
    vit_figures.draw_ends(arrays, curves, depths, "layers", out_dir / "ends.png")
    vit_depth_report.draw_gaps(arrays, facts, config, out_dir / "gaps.png")
