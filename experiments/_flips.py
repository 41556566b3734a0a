"""Random horizontal flips of the images of a minibatch.

    x[i, h, w, c]  becomes  x[i, h, W - 1 - w, c]  with probability 1/2, each image on its own

One trap: which images are flipped depends on the key and their places in the batch alone, so that
a resumed run flips what the undisturbed one would have.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float


def flipped(key: Any, x: Float[jax.Array, "b h w c"], /) -> Float[jax.Array, "b h w c"]:
    """The images, about half of them seen in a mirror.

    Args:
        key: Random key; another one for each batch.
        x: The images.

    >>> flipped(jax.random.key(0), jnp.ones((2, 4, 4, 3))).shape
    (2, 4, 4, 3)
    """
    chosen = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
    return jnp.where(chosen, x[:, :, ::-1], x)
