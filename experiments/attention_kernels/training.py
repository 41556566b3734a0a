r"""One Transformer trained on one task, several seeds side by side.

The model of Song et al. 2024: 2 layers, token dimension 64, 2 heads of dimension 32, 128
feed-forward neurons, learned positions, mean pooling and a linear readout to two classes, in the
standard parametrisation: plain sums over heads, neurons and layers, no layer norm.

    softmax    S = softmax(Q K^T / sqrt(k))
    gaussian   S_ab = exp(-c |q_a - k_b|^2 / sqrt(k)),   c = 1/2, rows not normalised

All seeds of a kernel train in one program, along an axis of their own.

One trap: the unnormalised kernel sums over all tokens, so longer sequences give larger updates,
where softmax takes means.

References:
    Song et al. 2024, arXiv 2411.07538, Section 5.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from meanfield import checks, flow, nn

KERNELS = ("softmax", "gaussian")
MEASURED_AT_ONCE = 64
"""Samples measured at once, where the training is not in chunks."""


class Task(NamedTuple):
    """What is trained on: samples, labels, and the way from a sample to tokens.

    Attributes:
        embedding: From a sample to tokens.
        x_train: Training samples.
        y_train: Their labels.
        x_test: Test samples.
        y_test: Their labels.
    """

    embedding: nn.Embedding
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


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
    """Greatest learning rate."""
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
        for name in ("depth", "dim", "heads", "head_dim", "neurons", "batch", "measured"):
            checks.count(name, getattr(self, name))
        for name in ("bandwidth", "learning_rate", "clip"):
            checks.positive(name, getattr(self, name))
        checks.count("seeds", self.seeds, least=2)
        checks.count("saves", self.saves, least=3)
        checks.count("warmup", self.warmup, least=0)
        checks.count("chunk", self.chunk if self.chunk is not None else 1)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
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


def trained(
    config: Training, task: Task, model: Any, *, label: str | None = None
) -> dict[str, np.ndarray]:
    """Losses and accuracies [seed, time] of one model.

    Args:
        config: The training.
        task: What to train on.
        model: The model, with ``init`` and ``apply``.
        label: What the progress bar is called; none without.
    """
    return stage(config, task, model, initial(config, model), label=label)[1]


def initial(config: Training, model: Any) -> Any:
    """Initial parameters, seeds along the leading axis."""
    keys = jax.vmap(jax.random.key)(jnp.arange(1, config.seeds + 1))
    width = (config.heads, config.neurons)
    return jax.jit(jax.vmap(lambda key: model.init(key, width=width)))(keys)


def stage(
    config: Training, task: Task, model: Any, start: Any, /, *, label: str | None,
    order: tuple[int, ...] = (), keep: bool = False,
) -> tuple[list[Any], dict[str, np.ndarray]]:  # fmt: skip
    """The points that training passes from some parameters, and losses and accuracies there.

    Args:
        config: The training.
        task: What to train on.
        model: The model, with ``apply``.
        start: Parameters, seeds along the leading axis.
        label: What the progress bar is called; no bar if None.
        order: Numbers that set this order of the data apart from others.
        keep: Whether to keep the points at all times, or the last one only.
    """
    optimizer = _optimizer(config)
    carry = (start, jax.vmap(optimizer.init)(start))
    data, test = _on_device(task.x_train, task.y_train), _on_device(task.x_test, task.y_test)
    train = (data[0][: config.measured], data[1][: config.measured])
    advance = jax.jit(functools.partial(_segment, model, optimizer, config))
    each = functools.partial(_measured, model, config.chunk or MEASURED_AT_ONCE)
    measure = jax.jit(jax.vmap(each, in_axes=(0, None, None)))
    points, rows = [start], [measure(start, train, test)]
    batches = _batches(config, len(task.y_train), order)
    for indices in tqdm(batches, desc=label, disable=label is None, leave=False):
        carry = advance(data, carry, indices=jnp.asarray(indices))
        points = [*points, carry[0]] if keep else [carry[0]]
        # Fetched at once: steps are queued, and the bar would run ahead of them.
        rows.append(jax.device_get(measure(carry[0], train, test)))
    names = rows[0]
    return points, {name: np.stack([np.asarray(r[name]) for r in rows], axis=-1) for name in names}


def _on_device(samples: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(samples), jnp.asarray(labels)


def _optimizer(config: Training) -> optax.GradientTransformation:
    rate: Any = config.learning_rate
    if config.warmup:
        # One cycle: up over the warm-up, then down to 0 as a cosine.
        rate = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, config.warmup, max(config.steps, config.warmup + 1)
        )
    rule = (
        optax.adam(rate)
        if config.optimizer == "adam"
        else optax.sgd(rate, momentum=config.momentum or None)
    )
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def _segment(
    model: Any,
    optimizer: optax.GradientTransformation,
    config: Training,
    data: tuple[jax.Array, jax.Array],
    carry: tuple,
    /,
    *,
    indices: jax.Array,
) -> tuple:
    """Steps of all seeds, each on minibatches of its own."""

    def one(theta: Any, state: Any, chosen: jax.Array) -> tuple[Any, Any]:
        risk = flow.empirical_risk(
            model.apply, data[0][chosen], data[1][chosen], loss="cross_entropy", chunk=config.chunk
        )
        updates, state = optimizer.update(jax.grad(risk)(theta), state, theta)
        return optax.apply_updates(theta, updates), state

    def step(carry: tuple, chosen: jax.Array) -> tuple[tuple, None]:
        theta, state = carry
        return jax.vmap(one)(theta, state, chosen), None

    return jax.lax.scan(step, carry, indices)[0]


def _measured(model: Any, chunk: int, theta: Any, train: tuple, test: tuple) -> dict:
    """Losses and test accuracy of one seed."""

    def logits(x: jax.Array) -> jax.Array:
        return jax.lax.map(lambda sample: model.apply(theta, sample), x, batch_size=chunk)

    def loss(found: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, labels))

    # One loop for both parts compiles once.
    both = logits(jnp.concatenate([train[0], test[0]]))
    found = both[len(train[0]) :]
    right = jnp.mean((jnp.argmax(found, axis=-1) == test[1]).astype(found.dtype))
    return {
        "train_loss": loss(both[: len(train[0])], train[1]),
        "test_loss": loss(found, test[1]),
        # What is not finite has no class: it counts as diverged and not as wrong.
        "accuracy": jnp.where(jnp.all(jnp.isfinite(found)), right, jnp.nan),
    }


def _batches(config: Training, samples: int, order: tuple[int, ...]) -> np.ndarray:
    """Numbers of samples [segment, step, seed, batch]: each seed goes through its own epochs."""
    needed = config.steps * config.batch
    rows = []
    for seed in range(1, config.seeds + 1):
        rng = np.random.default_rng([seed, *order])
        epochs = -(-needed // samples)
        rows.append(np.concatenate([rng.permutation(samples) for _ in range(epochs)])[:needed])
    every = np.stack(rows, axis=1).reshape(config.saves - 1, -1, config.batch, config.seeds)
    return every.transpose(0, 1, 3, 2).astype(np.int32)
