r"""Steps on minibatches for all seeds of one network at once, in any scaling law.

    theta <- theta - eta_t (D(s grad R_batch(theta)) + lambda s d theta),     D = id or Adam's

with the time scale s and the decay weight d of the law (:mod:`meanfield.nn.scaling`), s d = 1 for
particles. SGD is then the explicit Euler scheme of the flow with steps eta_t: in the mean-field
law the gradient of a particle is multiplied by L M, and eta is a time. Adam divides by the size of
the gradient, so it moves each entry of each particle by about eta whatever s is: eta is a rate per
particle, and that is the mean-field scale, the same for all depths and widths. s stays in the
gradient, as Adam's epsilon would else grow against gradients of size 1/(L M). The decay is beside
Adam, not in what it divides.

In the standard law s = 1 and outputs are sums: the same eta moves outputs M times as far.

One trap: a resumed training is the same bit for bit only if nothing but the number of the step
chooses images and flips.

References:
    Loshchilov and Hutter 2019, arXiv 1711.05101 (decay beside Adam).
"""

import collections
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _flips, _state
from experiments._images import Images
from experiments._pace import pace
from experiments.global_convergence import vit_model
from experiments.global_convergence.vit_model import Cell
from meanfield import flow, nn, replicas, tree, working_set

AHEAD = 2
"""Batches on their way to the device while a step is computed."""


def optimizer(config: Any) -> optax.GradientTransformation:
    """What becomes of a scaled gradient before it is multiplied by the learning rate.

    Args:
        config: The configuration.
    """
    return optax.scale_by_adam() if config.training == "adam" else optax.identity()


def learning_rate(config: Any, scaling: str) -> Callable[[Any], Any]:
    """The learning rate of each step: up over the warm-up, then down to 0 as a cosine.

    Args:
        config: The configuration.
        scaling: The law that trains.
    """
    rates = config.learning_rates
    peak = rates[config.scalings.index(scaling)] if len(rates) > 1 else rates[0]
    rising = round(config.warmup * config.steps)
    # From 1/rising: a first step of length 0 would be lost.
    return optax.warmup_cosine_decay_schedule(
        peak / (rising + 1), peak, rising, max(config.steps, rising + 1)
    )


def save_steps(config: Any) -> np.ndarray:
    """Numbers of steps after which all is measured, 0 and the last among them.

    Args:
        config: The configuration.
    """
    return np.unique(np.round(np.linspace(0, config.steps, config.saves)).astype(int))


def step(config: Any, built: nn.Model, scaling: str) -> Callable:
    """One step of one seed: ``(theta, state, (x, y), seed, number) -> (theta, state, risk)``.

    Args:
        config: The configuration.
        built: The network.
        scaling: Its law.
    """
    rule, rate = optimizer(config), learning_rate(config, scaling)

    def one(theta: Any, state: Any, batch: Any, seed: Any, number: Any) -> tuple:
        x, y = batch
        if config.flips:
            x = _flips.flipped(jax.random.fold_in(jax.random.key(seed), number), x)
        risk = flow.empirical_risk(built.apply, x, y, loss="cross_entropy", chunk=config.chunk)
        value, gradient = jax.value_and_grad(risk)(theta)
        times, decays = built.time_scales(theta), built.decay_scales(theta)
        moves, state = rule.update(tree.scale(times, gradient), state)
        decay = tree.scale(times, tree.scale(decays, theta))
        eta = rate(number)
        theta = jax.tree.map(
            lambda leaf, move, drift: (
                leaf - (eta * (move + config.weight_decay * drift)).astype(leaf.dtype)
            ),
            theta, moves, decay,
        )  # fmt: skip
        return theta, state, value

    return one


def batches(config: Any, images: Images, seeds: np.ndarray, first: int) -> Iterator[tuple]:
    """Numbers of steps, and the images [s b h w c] and labels of each; seeds have their own orders.

    Args:
        config: The configuration.
        images: The images.
        seeds: The seeds.
        first: The step to begin with.
    """
    each = config.images // config.batch
    orders: dict[int, np.ndarray] = {}
    for number in range(first, config.steps):
        epoch, place = divmod(number, each)
        if epoch not in orders:
            drawn = [np.random.default_rng([seed, epoch]) for seed in seeds]
            orders = {epoch: np.stack([one.permutation(config.images) for one in drawn])}
        chosen = orders[epoch][:, place * config.batch : (place + 1) * config.batch]
        pixels = images.x_train[chosen].astype(jnp.result_type(float))
        yield number, jax.device_put((pixels, images.y_train[chosen]))


def train(
    config: Any,
    images: Images,
    cell: Cell,
    *,
    label: str | None,
    checkpoints: Any = None,
) -> dict[str, Any]:
    """Losses and accuracies of one network [s t], and steps per second.

    Args:
        config: The configuration.
        images: The images, all of which are used.
        cell: The network.
        label: What the progress is called; none if None.
        checkpoints: Where the training saves itself, from ``kept.checkpoints``; None for nowhere.
    """
    built = vit_model.model(config, images, cell.scaling, cell.depth)
    theta = vit_model.starts(config, built, cell)
    carry = (theta, jax.vmap(optimizer(config).init)(theta))
    advance, measuring = _programs(config, built, cell.scaling)
    data = _measured(config, images)

    def measure(theta: Any) -> dict[str, np.ndarray]:
        return jax.device_get(measuring(theta, *data))

    known = None if checkpoints is None else checkpoints.load()
    if known is None:
        done, rows = 0, [measure(carry[0])]
    else:
        done, (carry, rows) = int(known["done"]), _state.restored(known, carry)
    saves, seeds = set(save_steps(config).tolist()), np.arange(1, config.seeds + 1)
    saved, risks = time.monotonic(), rows[-1]["loss"]
    with pace(label, total=config.steps) as paced:
        for number, batch in _ahead(batches(config, images, seeds, done)):
            places = jnp.asarray(seeds), jnp.full(len(seeds), number)
            before = risks
            *carry, risks = advance(*carry, batch, *places)
            # Waits for the step before: the host stays one ahead, and no more.
            said = f"loss {np.mean(before):.3g}"
            done, began = number + 1, time.monotonic()
            if done in saves:
                jax.block_until_ready(risks)
                began = time.monotonic()
                rows.append(measure(carry[0]))
            paced.passed(done, said=said, aside=time.monotonic() - began)
            stopping = checkpoints is not None and checkpoints.stopping()
            if checkpoints is not None and (
                stopping or time.monotonic() - saved >= checkpoints.seconds
            ):
                if (state := _state.saved(carry, rows)) is not None:
                    checkpoints.save(state | {"done": np.array(done)})
                saved = time.monotonic()
            if stopping:
                raise KeyboardInterrupt
    found = {name: np.stack([row[name] for row in rows], axis=-1) for name in rows[0]}
    completed = np.isfinite(found["loss"]).all(axis=-1)
    return found | {"completed": completed, "steps_per_second": paced.steps_per_second}


# A training that goes on in the same process finds its programs compiled.
@functools.lru_cache(maxsize=8)
def _programs(config: Any, built: nn.Model, scaling: str) -> tuple[Callable, Callable]:
    """A step of all seeds, and what is measured between steps, seeds along the leading axis."""

    def measure(theta: Any, x: Any, y: Any) -> dict[str, Any]:
        largest = working_set.largest_arrays(built.apply, theta, x[0])
        at_once = config.chunk or working_set.fitting(len(x), largest.made)
        logits = jax.lax.map(lambda image: built.apply(theta, image), x, batch_size=at_once)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        right = (jnp.argmax(logits, axis=-1) == y).astype(losses.dtype)
        # What is not finite has no class: it counts as diverged and not as wrong.
        right = jnp.where(jnp.isfinite(losses), right, jnp.nan)
        kept = min(config.measured, config.images)
        return {
            "loss": jnp.mean(losses[:kept]),
            "accuracy": jnp.mean(right[:kept]),
            "test_loss": jnp.mean(losses[kept:]),
            "test_accuracy": jnp.mean(right[kept:]),
        }

    # Images are no constants of the program: XLA would compute with them while it compiles.
    every = jax.jit(
        lambda thetas, x, y: replicas.batched(lambda theta: measure(theta, x, y))(thetas)
    )
    # Every step makes parameters anew: those before it need not be kept.
    return jax.jit(replicas.batched(step(config, built, scaling)), donate_argnums=(0, 1)), every


def _measured(config: Any, images: Images) -> tuple[jax.Array, jax.Array]:
    """The images that are measured, training part first: one loop for both compiles once."""
    kept = min(config.measured, config.images)
    x = np.concatenate([images.x_train[:kept], images.x_test])
    y = np.concatenate([images.y_train[:kept], images.y_test])
    return jnp.asarray(x, jnp.result_type(float)), jnp.asarray(y)


def _ahead(batches: Iterator[tuple]) -> Iterator[tuple]:
    """The same, begun earlier: copies to a device go on while it computes."""
    waiting = collections.deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
