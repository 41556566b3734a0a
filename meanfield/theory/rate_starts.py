r"""Starts from which the attention layer converges at a known rate, at a requested size.

    random start      every weight N(0, scale^2 / fan-in)
    silent start      W^V = 0, W_h^O = gain * orthonormal columns, W^Q and W^K as above

A silent start has f_0 = |y|^2/2 whatever the gain, while mu grows with its square: the path shrinks
like 1/gain in a ball that stays, so the ball test passes at *any* size with HD >= Nn and k >= c
where B has full row rank, if the gain is large enough: :func:`sufficient_start` finds it, and the
smallest such size; :func:`smallest_heads` finds that of any scheme, its gain as it is.

One trap: a large gain passes the test by making the layer linear in W^V (lazy training). The rate
eta mu does not improve with it: beta grows as mu does.

References:
    Song et al. 2024, arXiv 2411.07538 (conditions on the start); the schemes are our own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.checks import count, positive
from meanfield.theory.attention_layer import (
    AttentionLayer,
    Kernel,
    attention_features,
    check_layer,
    risk_share,
)
from meanfield.theory.ball_test import BallTest, ball_test, norms_test
from meanfield.theory.kernel_lipschitz import lipschitz_of
from meanfield.theory.layer_norms import first_heads, layer_norms

Start = Callable[..., AttentionLayer]
"""(key, heads, dim, head_dim, outputs) -> layer, whose heads are independent."""


class Try(NamedTuple):
    """One number of heads that was tried.

    Attributes:
        heads: H.
        full_rank: Whether B has full row rank to round-off.
        sigma: sigma(B).
        margin: Of the ball test.
    """

    heads: int
    full_rank: bool
    sigma: float
    margin: float


class HeadSearch(NamedTuple):
    """The smallest numbers of heads found, and what was tried.

    Attributes:
        rank: The smallest H at which B has full row rank, or None.
        heads: The smallest H that passes the ball test too, or None.
        tries: Every H tried, in order.
    """

    rank: int | None
    heads: int | None
    tries: tuple[Try, ...]


def random_start(scale: float = 1.0) -> Start:
    """The start whose weights are all Gaussian, of variance scale^2 / fan-in.

    Args:
        scale: Their standard deviation times the root of the fan-in.

    Raises:
        ValueError: If the scale is not positive.

    >>> random_start()(jax.random.key(0), 2, 3, 4, 1).output.shape
    (2, 4, 1)
    """
    positive("scale", scale)

    def start(key: Any, heads: int, dim: int, head_dim: int, outputs: int) -> AttentionLayer:
        keys = jax.random.split(key, 4)
        query, keyed, value = (_normal(each, (heads, dim, head_dim), scale) for each in keys[:3])
        return AttentionLayer(
            query, keyed, value, _normal(keys[3], (heads, head_dim, outputs), scale)
        )

    return start


def silent_start(scale: float = 1.0, *, gain: float = 1.0) -> Start:
    """The start with W^V = 0, orthonormal W_h^O times a gain, and Gaussian W^Q and W^K.

    Args:
        scale: The standard deviation of W^Q and W^K, times the root of the fan-in.
        gain: The singular values of every W_h^O.

    Raises:
        ValueError: If the scale or the gain is not positive; in the start, if k < c.

    >>> layer = silent_start(gain=2.0)(jax.random.key(0), 2, 3, 4, 1)
    >>> float(jnp.linalg.norm(layer.output[0]).round(5)), float(jnp.sum(jnp.abs(layer.value)))
    (2.0, 0.0)
    """
    positive("scale", scale)
    positive("gain", gain)

    def start(key: Any, heads: int, dim: int, head_dim: int, outputs: int) -> AttentionLayer:
        if head_dim < outputs:
            raise ValueError(
                f"head_dim must be >= the number of outputs {outputs}, got {head_dim}: columns of "
                "W^O cannot be orthonormal otherwise"
            )
        first, second, third = jax.random.split(key, 3)
        query, keyed = (_normal(each, (heads, dim, head_dim), scale) for each in (first, second))
        square = jax.random.normal(third, (heads, head_dim, outputs))
        output = gain * jnp.linalg.qr(square)[0]
        return AttentionLayer(query, keyed, jnp.zeros_like(query), output)

    return start


def smallest_heads(
    key: Any,
    kernel: Kernel,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    start: Start,
    head_dim: int,
    most: int,
    average: bool = False,
) -> HeadSearch:
    """The smallest number of heads that satisfies the conditions, for one draw of a start.

    Heads are drawn once, and the layer of H heads has the first H of them, from the threshold
    HD >= Nn on.

    Args:
        key: Random key.
        kernel: From queries and keys to weights, with its Lipschitz constant.
        inputs: The samples X_i.
        targets: The targets y_i.
        start: The scheme.
        head_dim: The dimension k of a head.
        most: The largest H to try.
        average: Whether the sum over samples is divided by N.

    Raises:
        ValueError: If sizes do not match, ``most`` is below the threshold, or the kernel carries no
            Lipschitz constant.

    >>> from meanfield.theory import GaussianKernel
    >>> given = jax.random.key(0), GaussianKernel(), jnp.eye(2)[None], jnp.ones((1, 2, 1))
    >>> smallest_heads(*given, start=silent_start(gain=1e6), head_dim=1, most=4).heads
    1
    """
    lipschitz = lipschitz_of(kernel)
    samples, tokens, dim = inputs.shape
    rows = samples * tokens
    least = math.ceil(rows / dim)
    count("most", most, least=least)
    layer = start(key, most, dim, count("head_dim", head_dim), targets.shape[-1])
    check_layer(layer, inputs, targets)
    norms = layer_norms(attention_features(kernel, layer, inputs), layer, inputs, targets)
    share = risk_share(inputs, average=average)
    tries = []
    for heads in range(least, most + 1):
        part = first_heads(norms, heads)
        found = norms_test(part, lipschitz, share=share, moving=True)
        tries.append(Try(heads, found.sigma > 0, found.sigma, found.margin))
        if tries[-1].full_rank and found.passes:
            break
    ranked = [each.heads for each in tries if each.full_rank]
    passed = [each.heads for each in tries if each.full_rank and each.margin > 1]
    return HeadSearch(next(iter(ranked), None), next(iter(passed), None), tuple(tries))


def sufficient_start(
    key: Any,
    kernel: Kernel,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    head_dim: int,
    heads: int | None = None,
    scale: float = 1.0,
    margin: float = 1.1,
    average: bool = False,
) -> tuple[AttentionLayer, BallTest]:
    """A silent start of the requested size whose gain is as large as the ball test asks.

    Args:
        key: Random key.
        kernel: From queries and keys to weights, with its Lipschitz constant.
        inputs: The samples X_i.
        targets: The targets y_i.
        head_dim: k.
        heads: H; if None the smallest, from Nn/D to four times that, at which B has full row rank.
        scale: The standard deviation of W^Q and W^K, times the root of the fan-in.
        margin: The margin by which the test is to pass, above 1.
        average: Whether the sum over samples is divided by N.

    Returns:
        The parameters and their ball test.

    Raises:
        ValueError: If HD < Nn, k < c, the margin is not above 1, or B has no full row rank.

    >>> from meanfield.theory import GaussianKernel
    >>> given = jax.random.key(0), GaussianKernel(), jnp.eye(2)[None], jnp.ones((1, 2, 1))
    >>> sufficient_start(*given, head_dim=1)[1].passes
    True
    """
    if not margin > 1:
        raise ValueError(f"margin must be > 1, got {margin}: at 1 the path may touch the sphere")
    rows, dim = inputs.shape[0] * inputs.shape[1], inputs.shape[2]
    least = math.ceil(rows / dim)
    if heads is not None and count("heads", heads) < least:
        raise ValueError(
            f"heads must be >= Nn/D = {least}, got {heads}: B has no full row rank below it"
        )
    rest = (dim, count("head_dim", head_dim), targets.shape[-1])
    for size in range(least, 4 * least + 1) if heads is None else (heads,):
        quiet = silent_start(scale)(key, size, *rest)
        found = ball_test(kernel, quiet, inputs, targets, average=average)
        if found.sigma:
            # The path shrinks at least like 1/gain while f_0 and the ball stay.
            layer = quiet._replace(output=max(1.0, margin / found.margin) * quiet.output)
            return layer, ball_test(kernel, layer, inputs, targets, average=average)
    raise ValueError(
        f"B must have full row rank {rows}, got less to round-off: raise heads or scale, or take "
        "inputs whose tokens differ"
    )


def _normal(key: Any, shape: tuple[int, ...], scale: float) -> Array:
    return scale * shape[-2] ** -0.5 * jax.random.normal(key, shape)
