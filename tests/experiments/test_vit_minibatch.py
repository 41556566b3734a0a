"""Steps on minibatches in either parametrisation, and trainings that were broken off."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from experiments._images import Images
from experiments.global_convergence import vit_minibatch, vit_model
from experiments.global_convergence.vit_model import Cell, Training
from meanfield import flow, tree

SMALL = Training(
    seeds=2, dim=4, head_dim=2, patch=2, images=12, test_images=5, training="sgd", batch=4,
    epochs=3, saves=4, learning_rates=(0.3,), warmup=0.0, measured=9, weight_decay=0.1,
)  # fmt: skip
RNG = np.random.default_rng(0)
IMAGES = Images(
    RNG.normal(size=(12, 4, 4, 1)).astype(np.float32), np.arange(12, dtype=np.int32) % 3,
    RNG.normal(size=(5, 4, 4, 1)).astype(np.float32), np.arange(5, dtype=np.int32) % 3,
    "noise", "0" * 64,
)  # fmt: skip


def one_step(config, cell):
    """Parameters before and after a first step on all images, and the network."""
    built = vit_model.model(config, IMAGES, cell.scaling, cell.depth)
    theta = vit_model.start(config, built, cell, 1)
    state = vit_minibatch.optimizer(config).init(theta)
    step = jax.jit(vit_minibatch.step(config, built, cell.scaling))
    batch = jnp.asarray(IMAGES.x_train), jnp.asarray(IMAGES.y_train)
    return built, theta, step(theta, state, batch, 1, 0)[0]


def risk(built):
    return flow.empirical_risk(built.apply, IMAGES.x_train, IMAGES.y_train, loss="cross_entropy")


def close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=round_off() * np.abs(other).max())


@pytest.mark.parametrize("scaling", ["mean_field", "standard"])
def test_sgd_is_eulers_scheme_of_the_flow(scaling):
    """Closed form: theta + eta v, v the field of the flow in the time of the law, decay and all."""
    config = dataclasses.replace(SMALL, scalings=(scaling,))
    built, theta, found = one_step(config, Cell(scaling, 2, 3))
    energy = flow.energy(risk(built), built.decay_scales, weight_decay=config.weight_decay)
    velocity = flow.gradient_field(energy, built.time_scales)(0.0, theta)
    close(found, jax.tree.map(lambda leaf, v: leaf + 0.3 * v, theta, velocity))


def test_adam_moves_each_entry_by_the_learning_rate():
    """Closed form: eta g/(|g| + eps) for the scaled gradient g, and the decay beside it."""
    config = dataclasses.replace(SMALL, training="adam", learning_rates=(0.01,))
    built, theta, found = one_step(config, Cell("mean_field", 2, 3))
    times = built.time_scales(theta)
    gradient = tree.scale(times, jax.grad(risk(built))(theta))
    decay = tree.scale(times, tree.scale(built.decay_scales(theta), theta))
    expected = jax.tree.map(
        lambda leaf, g, drift: leaf - 0.01 * (g / (jnp.abs(g) + 1e-8) + 0.1 * drift),
        theta, gradient, decay,
    )  # fmt: skip
    close(found, expected)


def test_standard_starts_with_the_fan_in_of_all_heads():
    """Closed form: what M particles write is 1/sqrt(M) of what one law for all widths draws."""
    cells = [Cell(scaling, 2, 4) for scaling in ("mean_field", "standard")]
    plain, fan_in = (
        vit_model.start(SMALL, vit_model.model(SMALL, IMAGES, cell.scaling, 2), cell, 1)
        for cell in cells
    )
    np.testing.assert_allclose(fan_in.blocks[0].output, plain.blocks[0].output / 2, rtol=1e-12)
    np.testing.assert_allclose(
        fan_in.blocks[1].weight_out, plain.blocks[1].weight_out / 2, rtol=1e-12
    )
    close(fan_in.blocks[0].query, plain.blocks[0].query)


def test_learning_rate_rises_and_falls():
    """Closed form: a line over the warm-up, then a cosine to 0; each law has its own peak."""
    config = dataclasses.replace(
        SMALL, scalings=("mean_field", "standard"), learning_rates=(1.0, 0.5), warmup=1 / 3
    )
    rising, steps = 3, 9
    for scaling, peak in zip(config.scalings, config.learning_rates, strict=True):
        rate = vit_minibatch.learning_rate(config, scaling)
        for number in range(steps + 1):
            up = (1 + number) / (rising + 1)
            down = (1 + np.cos(np.pi * (number - rising) / (steps - rising))) / 2
            expected = peak * (up if number < rising else down)
            np.testing.assert_allclose(rate(number), expected, rtol=1e-6, atol=1e-12)


def test_every_epoch_sees_every_image_once():
    """Numpy loop: three batches of four are all twelve images, in orders of the seeds' own."""
    seeds = np.array([1, 2])
    labels = np.arange(12, dtype=np.int32)
    batches = list(vit_minibatch.batches(SMALL, IMAGES._replace(y_train=labels), seeds, 0))
    assert [number for number, _ in batches] == list(range(9))
    seen = np.stack([np.asarray(y) for _, (_, y) in batches])
    for epoch in range(3):
        part = seen[3 * epoch : 3 * epoch + 3]
        for seed in range(2):
            assert sorted(part[:, seed].ravel().tolist()) == list(range(12))
    assert len({seen[3 * epoch, seed].tobytes() for epoch in range(3) for seed in range(2)}) == 6
    x, y = batches[4][1]
    np.testing.assert_array_equal(x, IMAGES.x_train[np.asarray(y)])
    # A training that begins in the middle goes on with what comes next.
    (number, (_, later)) = next(vit_minibatch.batches(SMALL, IMAGES, seeds, 4))
    assert number == 4
    np.testing.assert_array_equal(later, IMAGES.y_train[np.asarray(y)])


class Memory:
    """Checkpoints that are kept in memory, and that ask a training to stop after some steps."""

    def __init__(self):
        self.seconds, self.left = 1e9, 0
        self.kept: dict[str, Any] | None = None

    def load(self):
        return self.kept

    def save(self, arrays):
        self.kept = jax.tree.map(np.array, arrays)

    def stopping(self):
        self.left -= 1
        return self.left == 0


def test_broken_off_training_resumes_bit_for_bit():
    """Invariance: stopped after any step, Adam with flips ends with the very same curves."""
    config = dataclasses.replace(SMALL, training="adam", flips=True, warmup=0.3)
    cell, memory = Cell("mean_field", 2, 3), Memory()

    def curves(checkpoints):
        found = vit_minibatch.train(config, IMAGES, cell, label=None, checkpoints=checkpoints)
        return {name: found[name] for name in found if name != "steps_per_second"}

    whole = curves(None)
    assert whole["loss"].shape == whole["test_accuracy"].shape == (2, 4)
    for steps in (1, 4, 3):
        memory.left = steps
        with pytest.raises(KeyboardInterrupt):
            curves(memory)
    assert int((memory.kept or {})["done"]) == 8
    resumed = curves(memory)
    for name, values in whole.items():
        assert values.tobytes() == resumed[name].tobytes(), name


def test_divergence_is_no_accuracy():
    """Closed form: parameters that are not finite give NaN, and the seed has not completed."""
    config = dataclasses.replace(SMALL, learning_rates=(1e30,), epochs=1, saves=3)
    found = vit_minibatch.train(config, IMAGES, Cell("mean_field", 1, 1), label=None)
    assert not found["completed"].any()
    assert np.all(np.isfinite(found["accuracy"][:, 0]))
    assert np.all(np.isnan(found["accuracy"][:, -1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 13}, "batch must be at most the 12 training images, got 13"),
        ({"epochs": 1, "batch": 6}, "saves must be at most the 2 steps and one more, got 4"),
        ({"training": "flow", "saves": 9, "flips": True}, "flips need minibatches"),
        ({"scalings": ()}, r"scalings must be one law or several different, got \(\)"),
        ({"scalings": ("standard", "standard")}, "scalings must be one law or several different"),
        ({"learning_rates": (1.0, 2.0)}, "must be one number, or one for each of 1 scalings"),
        ({"learning_rates": (-1.0,)}, "learning_rates must be a finite number > 0, got -1.0"),
        ({"learning_rates": ()}, "must be one number, or one for each of 1 scalings, got 0"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_choices(change, message):
    """House rule: one sentence with what was got and what is expected, before any data is read."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_bad_images():
    """House rule: too few images for a batch, digits in a mirror, a patch that does not divide."""
    few = IMAGES._replace(x_train=IMAGES.x_train[:3], y_train=IMAGES.y_train[:3])
    with pytest.raises(ValueError, match="batch must be at most the 3 training images, got 4"):
        vit_model.used(SMALL, few)
    digits = IMAGES._replace(name="scikit-learn digits (1,797 images)")
    with pytest.raises(ValueError, match="flips must be off on the digits"):
        vit_model.used(dataclasses.replace(SMALL, flips=True), digits)
    with pytest.raises(ValueError, match="patch must divide the image of 4 x 4 pixels, got 3"):
        vit_model.model(dataclasses.replace(SMALL, patch=3), IMAGES, "mean_field", 2)
