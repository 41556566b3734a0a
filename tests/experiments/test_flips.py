"""Random mirrors of a minibatch."""

import jax
import numpy as np

from experiments import _flips


def test_each_image_is_itself_or_its_mirror():
    """Numpy loop: about half have columns in reverse order; lanes flip as each would alone."""
    x = np.random.default_rng(0).normal(size=(2, 400, 3, 4, 2)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    alone = jax.jit(_flips.flipped)
    found = [np.asarray(alone(key, lane)) for key, lane in zip(keys, x, strict=True)]
    mirrored = np.zeros((2, 400), bool)
    for lane in range(2):
        for index, (before, after) in enumerate(zip(x[lane], found[lane], strict=True)):
            mirror = np.array([[row[3 - column] for column in range(4)] for row in before])
            mirrored[lane, index] = np.array_equal(after, mirror)
            assert mirrored[lane, index] or np.array_equal(after, before)
    # Binomial: the standard error is 10.
    assert np.all(np.abs(mirrored.sum(axis=1) - 200) < 40)
    assert np.any(mirrored[0] != mirrored[1])
    assert found[0].dtype == np.float32
    np.testing.assert_array_equal(jax.jit(jax.vmap(_flips.flipped))(keys, x), found)
    np.testing.assert_array_equal(alone(keys[0], x[0]), found[0])
