"""Steps of training and what is measured between them, for several lanes at once.

A lane is one run: a seed with a learning rate of its own. Lanes lie along the leading axis of
parameters and optimiser states.

One trap: a factor of the learning rate scales the update that the optimiser hands back. That is
training at another rate only because neither SGD with momentum nor Adam keeps the rate in its
state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from meanfield import flow

MEASURED_AT_ONCE = 64
"""Samples measured at once, where the training is not in chunks."""


def optimizer(config: Any) -> optax.GradientTransformation:
    """The optimiser of a training, at its greatest learning rate.

    Args:
        config: The training.
    """
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


def advance(model: Any, rule: optax.GradientTransformation, chunk: int | None, /) -> Callable:
    """Steps of all lanes: ``(data, factors, (theta, state), indices) -> (theta, state)``, jitted.

    Args:
        model: The model, with ``apply``.
        rule: The optimiser.
        chunk: Samples of a step handled at once.
    """

    def one(data: Any, factor: Any, theta: Any, state: Any, chosen: Any) -> tuple[Any, Any]:
        risk = flow.empirical_risk(
            model.apply, data[0][chosen], data[1][chosen], loss="cross_entropy", chunk=chunk
        )
        updates, state = rule.update(jax.grad(risk)(theta), state, theta)
        scaled = jax.tree.map(lambda update: factor * update, updates)
        return optax.apply_updates(theta, scaled), state

    every = jax.vmap(one, in_axes=(None, 0, 0, 0, 0))

    def steps(data: Any, factors: Any, carry: tuple, indices: Any) -> tuple:
        return jax.lax.scan(
            lambda here, chosen: (every(data, factors, here[0], here[1], chosen), None),
            carry,
            indices,
        )[0]

    return jax.jit(steps)


def measure(model: Any, chunk: int | None, parts: dict[str, tuple], /) -> Callable:
    """Losses of each part, and which test samples are right, by lane: ``theta -> dict``.

    Args:
        model: The model, with ``apply``.
        chunk: Samples handled at once.
        parts: Samples and labels by name; the last one is the test part.
    """
    cuts = np.cumsum([len(labels) for _, labels in parts.values()])[:-1].tolist()
    # One loop for all parts compiles once.
    samples = jnp.concatenate([jnp.asarray(x) for x, _ in parts.values()])
    labels = jnp.concatenate([jnp.asarray(y) for _, y in parts.values()])

    def one(theta: Any, samples: Any, labels: Any) -> dict[str, jax.Array]:
        logits = jax.lax.map(
            lambda x: model.apply(theta, x), samples, batch_size=chunk or MEASURED_AT_ONCE
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        split = zip(parts, jnp.split(losses, cuts), strict=True)
        found = {f"{name}_loss": jnp.mean(part) for name, part in split}
        answers = logits[cuts[-1] :]
        right = jnp.argmax(answers, axis=-1) == labels[cuts[-1] :]
        # What is not finite has no class: it counts as diverged and not as wrong.
        whole = jnp.all(jnp.isfinite(answers))
        accuracy = jnp.where(whole, jnp.mean(right.astype(answers.dtype)), jnp.nan)
        return found | {"accuracy": accuracy, "right": right}

    program = jax.jit(jax.vmap(one, in_axes=(0, None, None)))
    return lambda theta: program(theta, samples, labels)


def batches(
    config: Any, samples: int, order: tuple[int, ...], seeds: Sequence[int], /
) -> np.ndarray:
    """Numbers of samples [segment, step, lane, batch]: each seed goes through its own epochs.

    Args:
        config: The training.
        samples: How many there are.
        order: Numbers that set this order of the data apart from others.
        seeds: The seed of each lane.
    """
    needed = config.steps * config.batch
    epochs = -(-needed // samples)
    rows = []
    for seed in seeds:
        rng = np.random.default_rng([seed, *order])
        rows.append(np.concatenate([rng.permutation(samples) for _ in range(epochs)])[:needed])
    every = np.stack(rows, axis=1).reshape(config.saves - 1, -1, config.batch, len(rows))
    return every.transpose(0, 1, 3, 2).astype(np.int32)
