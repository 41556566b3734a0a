r"""Training loss and accuracy of a Vision Transformer against its number of heads.

Fig. 1 of Gao et al. 2024: 6 layers, 4 to 40 heads, weight decay; more heads, lower training loss
and higher training accuracy. Training is the gradient flow in mean-field time,

    dTheta/dtau = -L M grad Q(Theta),

on all images at once, from particles drawn i.i.d., and the law of the heads is followed as their
number grows (:mod:`experiments.global_convergence.head_law`); or SGD or Adam on minibatches
(:mod:`experiments.global_convergence.vit_minibatch`). Parametrisations train side by side.

One trap: the paper's claim does not say in which parametrisation; each is judged by itself.

References:
    Gao et al. 2024, arXiv 2410.23610, Section 5 and Fig. 1.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments._cli import Outcome
from experiments.global_convergence import (
    head_law,
    vit_figures,
    vit_flow,
    vit_heads_facts,
    vit_heads_report,
    vit_model,
    vit_report,
    vit_scan,
)
from experiments.global_convergence.vit_model import Cell
from meanfield import checks, measure, nn
from meanfield.kept import NOTHING, Kept

SUMMARY = "ViT on images, by flow or on minibatches: loss and accuracy against heads (Gao, Fig. 1)."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(vit_model.Training):
    """Fig. 1 of Gao et al. as a gradient flow, or on minibatches."""

    heads: tuple[int, ...] = (4, 8, 16, 24, 40)
    """Numbers of heads in each layer, increasing."""
    depth: int = 6
    """Layers."""
    projections: int = 256
    """Flow: directions of the sliced Wasserstein distance."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        super().__post_init__()
        checks.count("depth", self.depth)
        checks.count("projections", self.projections)
        for width in self.heads:
            checks.count("heads", width)
        least, why = (4, "slopes need three widths below the widest")
        if self.training != "flow":
            least, why = (2, "the widest is compared with the narrowest")
        if len(self.heads) < least or np.any(np.diff(self.heads) <= 0):
            raise ValueError(
                f"heads must be {'four' if least == 4 else 'two'} or more increasing numbers, got "
                f"{self.heads}: {why}"
            )


PRESETS = {
    "tiny": Config(
        heads=(2, 3, 4, 6), seeds=2, depth=2, dim=8, head_dim=2, horizon=0.5, saves=9, images=20,
        test_images=20, projections=16,
    ),
    "default": Config(),
    "cifar": Config(
        heads=(4, 8, 16, 40), scalings=("mean_field", "standard"), training="adam",
        learning_rates=(0.02, 3e-4), images=512, test_images=250, measured=256, batch=32,
        epochs=12, saves=7,
    ),
    "paper": Config(
        heads=(4, 8, 12, 16, 20, 24, 28, 32, 36, 40), scalings=("mean_field", "standard"),
        training="adam", learning_rates=(3e-3, 3e-4), neurons_per_head=4, dim=64, head_dim=16,
        images=50_000, test_images=10_000, measured=10_000, batch=128, epochs=60, saves=61,
        flips=True,
    ),
}  # fmt: skip


def run(
    config: Config, *, data: Path | None, out_dir: Path, progress: bool, kept: Kept = NOTHING
) -> Outcome:
    """Trains every number of heads from every seed, measures, draws and reports."""
    on_cifar = {name: PRESETS[name] for name in ("cifar", "paper")}
    images, chosen, mine = vit_scan.opened(config, data, kept, on_cifar=on_cifar)
    cells = [Cell(law, config.depth, width) for law in config.scalings for width in config.heads]
    found = vit_scan.trained(
        chosen, mine, cells, progress=progress, kept=kept, heads=vit_heads_facts.LAW
    )
    arrays = {"heads": np.array(config.heads), "times": vit_scan.times(chosen)}
    arrays |= vit_scan.arrays(cells, found)
    if config.training == "flow":
        _add_flows(arrays, chosen, mine, cells, found, progress=progress, kept=kept)
    facts = vit_heads_facts.facts(arrays, config.scalings)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=vit_heads_report.report(
            arrays, facts, chosen, images, notes=vit_scan.notes(found, cells),
            paces=vit_report.paces(chosen, found, cells),
        ),
        summary=vit_heads_report.summary(arrays, facts, config),
        data_checksums={images.name: images.sha256},
        seeds=list(range(1, config.seeds + 1)),
    )  # fmt: skip


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws every figure of a run from its record and configuration."""
    facts = vit_heads_facts.facts(arrays, config.scalings)
    heads = arrays["heads"]
    vit_figures.draw_training(arrays, config, heads, "heads", out_dir / "training.png")
    if config.training != "flow" or len(config.scalings) > 1:
        curves = {law: found.curves for law, found in facts.items()}
        vit_figures.draw_ends(arrays, curves, heads, "heads", out_dir / "ends.png")
    if vit_heads_facts.LAW in facts and (law := facts[vit_heads_facts.LAW].heads) is not None:
        vit_heads_report.draw_law(arrays, law, config, out_dir)


def _add_flows(
    arrays: dict[str, Any], config: Any, images: Any, cells: Sequence[Cell],
    found: vit_scan.Found, *, progress: bool, kept: Any,
) -> None:  # fmt: skip
    """What only flows have: the heads along them, and one flow at finer tolerance."""
    arrays["head_times"] = arrays["times"][:: vit_flow.HEADS_EVERY]
    for law in config.scalings:
        cell = next(cell for cell in cells if cell.scaling == law)
        label = f"{law}, {cell.heads} heads" if progress else None

        def finer(cell: Cell = cell, label: str | None = label) -> Any:
            return vit_flow.finer_loss(
                config, images, cell, label=label, kept=kept,
                heads=cell.scaling == vit_heads_facts.LAW,
            )  # fmt: skip

        arrays[law]["finer_loss"] = kept.member(f"finer {law}", finer)
    law = vit_heads_facts.LAW
    if law in config.scalings:
        rows = {cell.heads: found[cell]["heads"] for cell in cells if cell.scaling == law}
        arrays[law] |= _head_law(config, rows, len(arrays["head_times"]))


def _head_law(config: Any, rows: dict[int, list], times: int) -> dict[str, Any]:
    """Distances and gaps [x s t], and the narrowest and widest networks' heads in a plane."""
    heads = {width: [nn.Head(*leaves) for leaves in row] for width, row in rows.items()}
    clouds = {w: [np.asarray(jax.vmap(measure.clouds)(one)) for one in heads[w]] for w in heads}
    return {
        "distance": np.array(
            [
                head_law.distances(clouds, width, times=times, projections=config.projections)
                for width in config.heads
            ]
        ),
        "gap": np.array(
            [head_law.path_gaps(clouds, width, times=times) for width in config.heads[:-1]]
        ),
        "clouds": {
            str(width): _strengths(heads[width], layer=config.depth // 2)
            for width in (config.heads[0], config.heads[-1])
        },
    }


def _strengths(heads: list[nn.Head], *, layer: int) -> np.ndarray:
    """Heads of one layer in two coordinates [t, s m, 2], all seeds together."""
    every = [np.asarray(head_law.strengths(one, layer=layer)) for one in heads]
    reached = min(len(one) for one in every)
    return np.concatenate([one[:reached] for one in every], axis=1)
