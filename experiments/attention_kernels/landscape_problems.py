"""The tasks of the landscape: data, model under each kernel, and training.

    --data FILE or DIR    an .npz file or a folder with metadata/: Pathfinder images
                          a folder that holds text/, pathfinder/ or pathfinder.npz: those
                          anything else: reviews

Layouts are those of the experiments ``text`` and ``pathfinder``. A task without data of its own
takes generated ones.

One trap: default sizes are for generated data. Real reviews are cut to ``length`` bytes, and hard
images need far more steps than the default takes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import _byte_sentiment, _pathfinder_data, _text_data
from experiments._datasets import Images
from experiments.attention_kernels import pathfinder, text
from experiments.attention_kernels.training import KERNELS, Task, model_of
from meanfield import nn

TASKS = ("text", "pathfinder")
PLACES = {"text": ("text",), "pathfinder": ("pathfinder", "pathfinder.npz")}
"""What holds each task's data in a folder for several tasks."""
TESTED = 200
"""Test samples of each task, at most."""
SHARED = (
    "seeds", "depth", "dim", "heads", "head_dim", "neurons", "bandwidth", "normalize", "saves",
    "chunk", "measured",
)  # fmt: skip


class Problem(NamedTuple):
    """A task, and how both kernels train on it.

    Attributes:
        name: ``"text"`` or ``"pathfinder"``.
        task: Samples and embedding.
        training: The training of either stage.
        models: The model under each kernel.
        data: What the data are, in the words of a report.
        checksums: Their checksums.
    """

    name: str
    task: Task
    training: Any
    models: dict[str, nn.Model]
    data: str
    checksums: dict[str, str]


def sources(data: Path | None, tasks: Sequence[str]) -> dict[str, Path]:
    """The user's data of each task, by what they hold.

    Args:
        data: A file or folder, or None.
        tasks: The tasks to be run.

    Raises:
        ValueError: If there is nothing, or they are data of a task that is not to be run.
    """
    if data is None:
        return {}
    if not data.exists():
        raise ValueError(f"data must be reviews or Pathfinder images, got {data}, which is nowhere")
    found = {
        name: data / place
        for name, places in PLACES.items()
        for place in places
        if (data / place).exists()
    }
    if not found:
        images = data.suffix == ".npz" or (data / "metadata").is_dir()
        found = {"pathfinder" if images else "text": data}
    unused = [name for name in found if name not in tasks]
    if unused:
        raise ValueError(
            f"tasks must include {unused[0]}, whose data {found[unused[0]]} seems to be, got "
            f"{', '.join(tasks)}"
        )
    return found


def problem(config: Any, name: str, source: Path | None = None) -> Problem:
    """One task of the configuration.

    Args:
        config: The sizes.
        name: ``"text"`` or ``"pathfinder"``.
        source: The user's data; generated ones if None.

    Raises:
        ValueError: If the data cannot be read, or are too few.
    """
    # A constant rate: a cycle that ends at 0 would stop stage 2 by its length alone.
    shared = {field: getattr(config, field) for field in SHARED} | {"warmup": 0}
    made = _text if name == "text" else _pathfinder
    training, task, said, checksums = made(config, shared, source)
    if training.batch > len(task.y_train) or config.measured > len(task.y_train):
        raise ValueError(
            f"batch and measured must be at most the {len(task.y_train)} training samples of "
            f"{name}, got {training.batch} and {config.measured}"
        )
    models = {kernel: model_of(training, task.embedding, kernel) for kernel in KERNELS}
    return Problem(name, task, training, models, said, checksums)


def _text(config: Any, shared: dict[str, Any], source: Path | None) -> tuple:
    training = text.Config(
        learning_rate=config.text_rate, length=config.length, steps=config.text_steps,
        batch=config.text_batch, **shared,
    )  # fmt: skip
    if source is None:
        texts = _byte_sentiment.byte_sentiment(
            reviews=config.reviews, test_reviews=TESTED, length=config.length
        )
    else:
        texts = _text_data.reviews(source, length=config.length)
        texts = _text_data.some(texts, reviews=config.reviews, test_reviews=TESTED)
    embedding = nn.byte_text(length=config.length, dim=config.dim)
    task = Task(embedding, texts.x_train, texts.y_train, texts.x_test, texts.y_test)
    used = f"{len(task.y_train):,} and {len(task.y_test):,} are used, as {config.length} bytes each"
    return training, task, f"{texts.name}; {used}", texts.checksums


def _pathfinder(config: Any, shared: dict[str, Any], source: Path | None) -> tuple:
    training = pathfinder.Config(
        learning_rate=config.pathfinder_rate, tokens=config.tokens, patch=config.patch,
        steps=config.pathfinder_steps, batch=config.pathfinder_batch, **shared,
    )  # fmt: skip
    if source is None:
        options = {} if config.distractors is None else {"distractors": config.distractors}
        images, dots = _pathfinder_data.generated(
            images=config.images, test_images=TESTED, size=config.size, dashes=config.dashes,
            spread=config.spread, **options,
        )  # fmt: skip
        said = f"{images.name}; the displacement of the dots alone is right in {100 * dots:.0f} %"
    else:
        images = _some(source, config.images)
        side, used = images.x_train.shape[1], f"{len(images.y_train):,} and {len(images.y_test):,}"
        said = f"{images.name}, {side} × {side}; {used} are used"
    return training, pathfinder.task_of(training, images), said, {images.name: images.sha256}


def _some(source: Path, number: int) -> Images:
    """At most so many of the images, drawn at random once and for all: a file may be sorted."""
    folder = source.is_dir()
    whole = _pathfinder_data.pathfinder_images(
        source,
        images=number if folder else sys.maxsize,
        test_images=TESTED if folder else sys.maxsize,
    )
    rng = np.random.default_rng(0)
    train = rng.permutation(len(whole.y_train))[:number]
    test = rng.permutation(len(whole.y_test))[:TESTED]
    return whole._replace(
        x_train=whole.x_train[train], y_train=whole.y_train[train],
        x_test=whole.x_test[test], y_test=whole.y_test[test],
    )  # fmt: skip
