r"""One Transformer trained on one task, several seeds side by side.

The model of Song et al. 2024: 2 layers, token dimension 64, 2 heads of dimension 32, 128
feed-forward neurons, learned positions, mean pooling and a linear readout to two classes, in the
standard parametrisation: plain sums over heads, neurons and layers, no layer norm.

    softmax    S = softmax(Q K^T / sqrt(k))
    gaussian   S_ab = exp(-c |q_a - k_b|^2 / sqrt(k)),   c = 1/2, rows not normalised

All seeds of a kernel train in one program, along an axis of their own
(:mod:`experiments.attention_kernels.training_steps`).

One trap: the unnormalised kernel sums over all tokens, so longer sequences give larger updates,
where softmax takes means.

References:
    Song et al. 2024, arXiv 2411.07538, Section 5.
"""

import dataclasses
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_kernels import training_journal, training_steps
from meanfield import checks, nn, progress

KERNELS = ("softmax", "gaussian")
COUNTS = ("depth", "dim", "heads", "head_dim", "neurons", "batch", "measured", "held_out")


class Task(NamedTuple):
    """What is trained on: samples, labels, and the way from a sample to tokens.

    Attributes:
        embedding: From a sample to tokens.
        x_train: Training samples.
        y_train: Their labels.
        x_test: Test samples.
        y_test: Their labels.
        valid: Samples and labels held out of the training, for choices; none by default.
    """

    embedding: nn.Embedding
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    valid: tuple[np.ndarray, np.ndarray] | None = None


class Lanes(NamedTuple):
    """What trains side by side.

    Attributes:
        seeds: The seed of each lane.
        factors: Its learning rate, in units of the configuration's.
    """

    seeds: tuple[int, ...]
    factors: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The fields that both experiments share; each sets its own defaults."""

    seeds: int = 3
    """Independent initial parameters and orders of the data, each under both kernels."""
    depth: int = 2
    """Layers."""
    dim: int = 64
    """Token dimension."""
    heads: int = 2
    """Heads of each layer."""
    head_dim: int = 32
    """Head dimension."""
    neurons: int = 128
    """Feed-forward neurons of each layer."""
    bandwidth: float = 0.5
    """Bandwidth c of the Gaussian kernel."""
    normalize: bool = False
    """Whether rows of the Gaussian kernel are divided by their sum."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimiser."""
    momentum: float = 0.0
    """Momentum of SGD."""
    learning_rate: float = 1e-3
    """Greatest learning rate, in the middle of the ladder."""
    ladder: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Learning rates tried under each kernel, in units of the rate above; one is no ladder."""
    trial: float = 0.3
    """Share of the steps for which each is tried, with a seed of its own."""
    held_out: int = 500
    """Training samples held out to choose the learning rate and the time to stop."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0."""
    clip: float = 1.0
    """Greatest norm of a gradient; longer ones are shortened."""
    batch: int = 16
    """Samples of a step."""
    steps: int = 1000
    """Steps of training."""
    saves: int = 21
    """Times at which losses and accuracies are measured, both ends included."""
    chunk: int | None = None
    """Samples of a step handled at once; sets memory and nothing else."""
    measured: int = 256
    """Training samples on which the training loss is measured."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in COUNTS:
            checks.count(name, getattr(self, name))
        for name in ("bandwidth", "learning_rate", "clip"):
            checks.positive(name, getattr(self, name))
        checks.count("seeds", self.seeds, least=2)
        checks.count("saves", self.saves, least=3)
        checks.count("warmup", self.warmup, least=0)
        checks.count("chunk", self.chunk if self.chunk is not None else 1)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if not 0 < self.trial <= 1:
            raise ValueError(f"trial must be in (0, 1], got {self.trial}")
        rising = all(low < high for low, high in itertools.pairwise((0.0, *self.ladder)))
        if not self.ladder or not rising or not np.isfinite(self.ladder[-1]):
            raise ValueError(f"ladder must hold positive numbers that rise, got {self.ladder}")
        if checks.count("steps", self.steps) % (self.saves - 1):
            raise ValueError(
                f"steps must be a multiple of saves - 1 = {self.saves - 1}, got {self.steps}"
            )


def model_of(config: Training, embedding: nn.Embedding, kernel: str) -> nn.Model:
    """The Transformer under one kernel.

    Args:
        config: Its sizes.
        embedding: From a sample to tokens.
        kernel: ``"softmax"`` or ``"gaussian"``.
    """
    weights = (
        nn.softmax()
        if kernel == "softmax"
        else nn.gaussian(config.bandwidth, normalize=config.normalize)
    )
    network = nn.network(
        (
            nn.attention(dim=config.dim, head_dim=config.head_dim, kernel=weights),
            nn.mlp(dim=config.dim),
        ),
        depth=config.depth,
        scaling=nn.scaling.standard(),
    )
    return nn.model(embedding, network, nn.class_read(dim=config.dim, classes=2, pool="mean"))


def initial(config: Training, model: Any, *, seeds: tuple[int, ...] | None = None) -> Any:
    """Initial parameters, seeds along the leading axis.

    Args:
        config: The training.
        model: The model, with ``init``.
        seeds: Which seeds; 1, 2, ... if None.
    """
    chosen = seeds or _lanes(config).seeds
    keys = jax.vmap(jax.random.key)(jnp.asarray(chosen))
    width = (config.heads, config.neurons)
    return jax.jit(jax.vmap(lambda key: model.init(key, width=width)))(keys)


def stage(
    config: Training, task: Task, model: Any, start: Any, /, *, label: str | None,
    order: tuple[int, ...] = (), keep: bool = False, lanes: Lanes | None = None,
    samples: bool = False, checkpoints: Any = None,
) -> tuple[list[Any], dict[str, np.ndarray]]:  # fmt: skip
    """The points that training passes from some parameters, and losses and accuracies there.

    Args:
        config: The training.
        task: What to train on.
        model: The model, with ``apply``.
        start: Parameters, lanes along the leading axis.
        label: What the progress is called; none is shown if None.
        order: Numbers that set this order of the data apart from others.
        keep: Whether to keep the points at all times, or the last one only.
        lanes: What trains side by side; seeds 1, 2, ... at the same rate if None.
        samples: Whether to keep, too, which test samples are ``right`` [lane, sample, time].
        checkpoints: Where it saves itself and goes on from (``kept.checkpoints``); nowhere if None.
    """
    rule, lanes = training_steps.optimizer(config), lanes or _lanes(config)
    carry = (start, jax.vmap(rule.init)(start))
    data = (jnp.asarray(task.x_train), jnp.asarray(task.y_train))
    parts = {"train": (task.x_train[: config.measured], task.y_train[: config.measured])}
    if task.valid is not None:
        parts["valid"] = task.valid
    parts["test"] = (task.x_test, task.y_test)
    measure = training_steps.measure(model, config.chunk, parts)
    advance = training_steps.advance(model, rule, config.chunk)
    factors = jnp.asarray(lanes.factors)
    order_of = training_steps.batches(config, len(task.y_train), order, lanes.seeds)
    journal = training_journal.opened(checkpoints, carry, lambda: measure(start), keep=keep)
    with progress.bar(label) as done:
        for at in range(len(journal.rows) - 1, len(order_of)):
            done(at / len(order_of))
            carry = advance(data, factors, journal.carry, jnp.asarray(order_of[at]))
            # Fetched at once: steps are queued, and progress would run ahead of them.
            journal.add(carry, jax.device_get(measure(carry[0])))
        done(1.0)
    rows = journal.rows
    names = [name for name in rows[0] if samples or name != "right"]
    table = {name: np.stack([row[name] for row in rows], axis=-1) for name in names}
    return journal.points, table


def _lanes(config: Training) -> Lanes:
    return Lanes(tuple(range(1, config.seeds + 1)), (1.0,) * config.seeds)
