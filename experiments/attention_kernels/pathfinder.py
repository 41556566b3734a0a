r"""Pathfinder images under softmax and Gaussian attention, trained by Adam.

Pathfinder of Song et al. 2024: which kernel reaches the higher test accuracy, and faster? The
model is in :mod:`experiments.attention_kernels.training`. Tokens are single pixels as grey values,
as published, or square patches behind a class token.

One trap: the displacement of the two dots alone tells some labels, and the easier the images, the
more: the report holds that accuracy against the kernels'. The default's images are far easier than
the published ones, for a CPU: 16 x 16, two dashes, no distractors, four patches. A model needs
some 150,000 of them to do better than the displacement.

References:
    Song et al. 2024, arXiv 2411.07538, Section 5;
    Tay et al. 2021, arXiv 2011.04006 (Long Range Arena).
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import _datasets, _pathfinder_data
from experiments._cli import Outcome
from experiments.attention_kernels import race, race_facts, race_report, training
from meanfield import checks, nn
from meanfield.kept import NOTHING, Kept

SUMMARY = "Pathfinder images under softmax and Gaussian attention, by Adam (Song, Section 5)."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(training.Training):
    """Pathfinder images under both kernels."""

    seeds: int = 5
    """Independent initial parameters and orders of the data, each under both kernels."""
    optimizer: Literal["sgd", "adam"] = "adam"
    """Optimiser."""
    learning_rate: float = 1e-3
    """Greatest learning rate."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    batch: int = 64
    """Samples of a step."""
    steps: int = 12_000
    """Steps of training."""
    tokens: Literal["patches", "grey_values"] = "patches"
    """Tokens: square patches, or single pixels of 256 grey values."""
    patch: int = 8
    """Side of a patch in pixels."""
    images: int = 240_000
    """Training images used at most."""
    test_images: int = 4000
    """Test images used at most."""
    size: int = 16
    """Side of a generated image; without --data."""
    dashes: int = 2
    """Dashes of each path; without --data."""
    distractors: int | None = 0
    """Distractor paths, None for the published 0 to 5; without --data."""
    spread: int = 3
    """Distance of the two paths' first ends; without --data."""
    matched: int | None = None
    """Side of a cell in which displacements of the dots tell no label; without --data."""
    apart: bool = False
    """Whether the two paths light no pixel together; without --data."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        super().__post_init__()
        for name in ("patch", "images", "test_images", "size", "dashes", "spread"):
            checks.count(name, getattr(self, name))
        checks.count("matched", self.matched if self.matched is not None else 1)


PRESETS = {
    "tiny": Config(
        dim=8, head_dim=4, neurons=8, seeds=2, images=64, test_images=40, batch=8, steps=16,
        saves=5, measured=32, dashes=3, ladder=(0.3, 1.0), held_out=16,
    ),
    "default": Config(),
    "paper": Config(
        tokens="grey_values", images=160_000, test_images=20_000, size=32, spread=7, dashes=14,
        distractors=None, batch=128, learning_rate=2e-4, warmup=312, steps=50_000, saves=51,
        chunk=32, measured=2000,
    ),
}  # fmt: skip


def run(
    config: Config,
    *,
    data: Path | None,
    out_dir: Path,
    progress: bool,
    kept: Kept = NOTHING,
) -> Outcome:
    """Trains both kernels from every seed, draws and reports."""
    images, dots = _images(config, data)
    kept.same("data", {images.name: images.sha256})
    baseline = (
        ("a constant answer", float(max(images.y_test.mean(), 1 - images.y_test.mean())))
        if dots is None
        else ("displacement of the dots alone", dots)
    )
    arrays = race.curves(config, task_of(config, images), kept, progress=progress)
    arrays |= race_facts.with_baseline(baseline)
    facts = race_facts.facts(arrays, baseline=baseline[1])
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=race_report.report(
            *(arrays, facts, config),
            title="Pathfinder under softmax and Gaussian attention",
            task="Pathfinder, Adam",
            setting=_setting(config, images, generated=data is None),
            baseline=baseline,
        ),
        summary=race_report.summary(arrays, facts, baseline=baseline),
        data_checksums={images.name: images.sha256},
        seeds=list(range(1, config.seeds + 1)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    race_report.draw(arrays, out_dir / "curves.png", baseline=race_facts.baseline(arrays))


def _images(config: Config, data: Path | None) -> tuple[_datasets.Images, float | None]:
    """The images, and how well the displacement of the dots alone does if we drew them."""
    if data is not None:
        return _pathfinder_data.pathfinder_images(
            data, images=config.images, test_images=config.test_images
        ), None
    options: dict[str, Any] = {
        "size": config.size, "dashes": config.dashes, "spread": config.spread,
        "matched": config.matched, "apart": config.apart,
    }  # fmt: skip
    if config.distractors is not None:
        options["distractors"] = config.distractors
    return _pathfinder_data.generated(
        images=config.images, test_images=config.test_images, **options
    )


def task_of(config: Config, images: _datasets.Images) -> training.Task:
    """What is trained on: images as tokens.

    Args:
        config: Which tokens.
        images: The images.
    """
    shape = images.x_train.shape[1:]
    if config.tokens == "grey_values":
        # 0 would be padding, so the ids begin at 1.
        x, x_test = (
            np.rint(255 * part).astype(np.int32).reshape(len(part), -1) + 1
            for part in (images.x_train, images.x_test)
        )
        embedding = nn.byte_text(length=x.shape[1], dim=config.dim)
        return training.Task(embedding, x, images.y_train, x_test, images.y_test)
    scaled = _datasets.standardised(images)
    embedding = nn.patches(shape=shape, patch=config.patch, dim=config.dim)
    return training.Task(embedding, scaled.x_train, images.y_train, scaled.x_test, images.y_test)


def _setting(config: Config, images: _datasets.Images, *, generated: bool) -> str:
    side = images.x_train.shape[1]
    if config.tokens == "grey_values":
        tokens = f"{side**2} tokens, one for each pixel's grey value"
    else:
        across = side // config.patch
        tokens = f"{across**2} patches of {config.patch} × {config.patch} behind a class token"
    drawn = ""
    if generated:
        number = "0 to 5" if config.distractors is None else config.distractors
        drawn = f", {number} distractor paths"
        if config.matched is not None:
            drawn += f", displacements of the dots matched in cells of {config.matched}"
        drawn += ", paths that do not touch" if config.apart else ""
    return (
        f"Data: {images.name}{drawn}, as {tokens}. The paper uses the Long Range Arena's hard "
        "level: 32 × 32, paths of 14 dashes, distractors, 1,024 tokens."
    )
