r"""Byte-level reviews under softmax and Gaussian attention, trained by SGD.

Text classification of Song et al. 2024: which kernel reaches the higher test accuracy, and faster?
The model is in :mod:`experiments.attention_kernels.training`.

One trap: without ``--data`` the reviews are synthetic. They say whether both kernels train, and
nothing about natural language; at the published sizes they are refused.

References:
    Song et al. 2024, arXiv 2411.07538, Section 5.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments import _byte_sentiment, _text_data
from experiments._cli import Outcome
from experiments.attention_kernels import race, race_facts, race_report, training
from meanfield import checks, nn
from meanfield.kept import NOTHING, Kept

SUMMARY = "Byte-level reviews under softmax and Gaussian attention, by SGD (Song, Section 5)."

SYNTHETIC = {"length": 512, "reviews": 20_000, "test_reviews": 20_000}
"""Greatest sizes of synthetic reviews: a run beyond is meant for real ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(training.Training):
    """Byte-level reviews under both kernels."""

    seeds: int = 5
    """Independent initial parameters and orders of the data, each under both kernels."""
    learning_rate: float = 0.3
    """Greatest learning rate, in the middle of the ladder."""
    warmup: int = 40
    """Steps over which the learning rate rises from 0; then it falls back to 0."""
    steps: int = 600
    """Steps of training."""
    saves: int = 13
    """Times at which losses and accuracies are measured, both ends included."""
    length: int = 96
    """Bytes of a review, and positions of the model."""
    longer: Literal["cut", "refuse"] = "cut"
    """What becomes of longer reviews."""
    reviews: int = 8000
    """Training reviews used at most."""
    test_reviews: int = 1000
    """Test reviews used at most."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        super().__post_init__()
        for name in ("length", "reviews", "test_reviews"):
            checks.count(name, getattr(self, name))


PRESETS = {
    "tiny": Config(
        dim=8, head_dim=4, neurons=8, seeds=2, length=32, reviews=64, test_reviews=40, batch=8,
        steps=16, warmup=4, saves=5, measured=32, ladder=(1.0,), held_out=16,
    ),
    "default": Config(),
    "paper": Config(
        length=4000, reviews=25_000, test_reviews=25_000, batch=32, steps=50_000, saves=51,
        warmup=80, chunk=8, measured=2000,
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
    texts = _texts(config, data)
    kept.same("data", texts.checksums)
    task = training.Task(
        nn.byte_text(length=config.length, dim=config.dim),
        *(texts.x_train, texts.y_train, texts.x_test, texts.y_test),
    )
    baseline = ("counts of bytes alone", _byte_sentiment.letter_accuracy(texts))
    arrays = race.curves(config, task, kept, progress=progress) | race_facts.with_baseline(baseline)
    facts = race_facts.facts(arrays, baseline=baseline[1])
    draw(arrays, config, out_dir)
    cut = (texts.x_train[:, -1] != 0).mean()
    return Outcome(
        arrays=arrays,
        report=race_report.report(
            *(arrays, facts, config),
            title="Byte-level reviews under softmax and Gaussian attention",
            task="IMDb reviews, SGD",
            setting=f"Data: {texts.name}; {len(task.y_train):,} and {len(task.y_test):,} "
            f"are used, as {config.length} bytes each: {100 * cut:.0f} % of the training reviews "
            "fill them all and may be cut. The paper uses the Long Range Arena's lengths.",
            baseline=baseline,
        ),
        summary=race_report.summary(arrays, facts, baseline=baseline),
        data_checksums=texts.checksums,
        seeds=list(range(1, config.seeds + 1)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    race_report.draw(arrays, out_dir / "curves.png", baseline=race_facts.baseline(arrays))


def _texts(config: Config, data: Path | None) -> _text_data.Texts:
    if data is None:
        for name, most in SYNTHETIC.items():
            if getattr(config, name) > most:
                raise ValueError(
                    f"without --data reviews are synthetic and {name} must be at most {most:,}, "
                    f"got {getattr(config, name):,}; give --data with reviews or lower it"
                )
        return _byte_sentiment.byte_sentiment(
            reviews=config.reviews, test_reviews=config.test_reviews, length=config.length
        )
    texts = _text_data.reviews(data, length=config.length, longer=config.longer)
    return _text_data.some(texts, reviews=config.reviews, test_reviews=config.test_reviews)
