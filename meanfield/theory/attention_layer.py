r"""The single attention layer whose gradient descent has a theorem.

With N samples X_i of n tokens in R^D, H heads of dimension k, and S_ih the weights of the kernel,

    MH(X_i) = Concat_h (S_ih X_i W_h^V) W^O = sum_h S_ih X_i W_h^V W_h^O
    f       = (1/2) sum_i |MH(X_i) - y_i|^2          (times 1/N if ``average``)

The layer is linear in W^V through B = [B_1 ... B_H], B_h = stack_i S_ih X_i (Nn x HD), and linear
in W^O through A = [A_1 ... A_H], A_h = B_h W_h^V (Nn x Hk).

One trap: there is no residual, norm or MLP here, and no mean over heads as in the mean-field
networks of the rest of the tool: the heads are summed.

References:
    Song et al. 2024, arXiv 2411.07538, the model of its theorems.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from meanfield.checks import choice, finite
from meanfield.notation import Scalar, Weights

Kernel = Callable[..., Weights]
"""(queries [n k], keys [n k]) -> weights [n n], whose row a depends on no query but that of a."""


class AttentionLayer(NamedTuple):
    """The parameters of the layer, one leading axis of heads.

    Attributes:
        query: W^Q.
        key: W^K.
        value: W^V.
        output: W^O, cut into the rows that belong to each head.
    """

    query: Float[Array, "m d k"]
    key: Float[Array, "m d k"]
    value: Float[Array, "m d k"]
    output: Float[Array, "m k c"]


@functools.partial(jax.jit, static_argnums=0)
def attention_weights(
    kernel: Kernel, layer: AttentionLayer, inputs: Float[Array, "b n d"], /
) -> Float[Array, "b m n n"]:
    """The weights S_ih of every sample and head.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> attention_weights(lambda q, k: q @ k.T, layer, jnp.full((1, 1, 1), 2.0)).tolist()
    [[[[4.0]]]]
    """
    queries = jnp.einsum("bnd,mdk->bmnk", inputs, layer.query)
    keys = jnp.einsum("bnd,mdk->bmnk", inputs, layer.key)
    return jax.vmap(jax.vmap(kernel))(queries, keys)


@functools.partial(jax.jit, static_argnums=0)
def attention_features(
    kernel: Kernel, layer: AttentionLayer, inputs: Float[Array, "b n d"], /
) -> Float[Array, "bn m d"]:
    """The matrix B = [B_1 ... B_H], heads along an axis of their own.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters, of which W^Q and W^K matter.
        inputs: The samples X_i.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> attention_features(lambda q, k: q @ k.T, layer, jnp.full((1, 1, 1), 2.0)).tolist()
    [[[8.0]]]
    """
    weights = attention_weights(kernel, layer, inputs)
    features = jnp.einsum("bmnj,bjd->bnmd", weights, inputs)
    return features.reshape(-1, *features.shape[2:])


@functools.partial(jax.jit, static_argnums=0)
def head_outputs(
    kernel: Kernel, layer: AttentionLayer, inputs: Float[Array, "b n d"], /
) -> Float[Array, "bn m k"]:
    """The matrix A = [A_1 ... A_H] before W^O, heads along an axis of their own.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters, of which W^O does not matter.
        inputs: The samples X_i.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> head_outputs(lambda q, k: q @ k.T, layer, jnp.full((1, 1, 1), 2.0)).tolist()
    [[[8.0]]]
    """
    return jnp.einsum("zmd,mdk->zmk", attention_features(kernel, layer, inputs), layer.value)


@functools.partial(jax.jit, static_argnums=0)
def attention_output(
    kernel: Kernel, layer: AttentionLayer, inputs: Float[Array, "b n d"], /
) -> Float[Array, "b n c"]:
    """The layer's output MH(X_i) for every sample.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> attention_output(lambda q, k: q @ k.T, layer, jnp.full((1, 1, 1), 2.0)).tolist()
    [[[8.0]]]
    """
    parts = head_outputs(kernel, layer, inputs)
    return jnp.einsum("zmk,mkc->zc", parts, layer.output).reshape(*inputs.shape[:2], -1)


def attention_risk(
    kernel: Kernel,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    average: bool = False,
) -> Callable[[AttentionLayer], Scalar]:
    """The risk f of the layer, a function of its parameters.

    Args:
        kernel: From queries and keys to weights.
        inputs: The samples X_i.
        targets: The targets y_i.
        average: Whether the sum over samples is divided by N.

    >>> risk = attention_risk(lambda q, k: q @ k.T, *[jnp.full((1, 1, 1), 2.0)] * 2)
    >>> float(risk(AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)))
    18.0
    """
    share = risk_share(inputs, average=average)

    def risk(layer: AttentionLayer) -> Scalar:
        error = attention_output(kernel, layer, inputs) - targets
        return share * jnp.sum(error**2) / 2

    return risk


def risk_share(inputs: Float[Array, "b n d"], /, *, average: bool) -> float:
    """The factor before the sum over samples: 1, or 1/N.

    Args:
        inputs: The samples X_i.
        average: Whether the sum over samples is divided by N.

    >>> risk_share(jnp.ones((4, 2, 1)), average=True)
    0.25
    """
    return 1 / len(inputs) if average else 1.0


def trained_names(trained: Sequence[str], /) -> tuple[str, ...]:
    """The names of trained parameters in the order of :class:`AttentionLayer`.

    Args:
        trained: Any of ``"query"``, ``"key"``, ``"value"``, ``"output"``, at least one.

    Raises:
        ValueError: If there is none, or one is not the name of a parameter.

    >>> trained_names(["value", "query"])
    ('query', 'value')
    """
    given = (trained,) if isinstance(trained, str) else tuple(trained)
    if not given:
        raise ValueError("trained must name at least one parameter, got none; say ('value',)")
    for name in given:
        choice("trained", name, AttentionLayer._fields)
    return tuple(name for name in AttentionLayer._fields if name in given)


def check_layer(
    layer: AttentionLayer,
    inputs: Shaped[Array, "..."],
    targets: Shaped[Array, "..."] | None = None,
    /,
) -> None:
    """Nothing, if parameters and data fit each other, are floating-point and finite.

    Args:
        layer: Parameters.
        inputs: The samples X_i.
        targets: The targets y_i, if any.

    Raises:
        ValueError: Otherwise.

    >>> check_layer(AttentionLayer(*[jnp.ones((1, 1, 1))] * 4), jnp.ones((2, 3, 1)))
    """
    shapes = [jnp.shape(leaf) for leaf in layer]
    if any(len(shape) != 3 for shape in shapes) or jnp.ndim(inputs) != 3:
        raise ValueError(
            f"parameters must be [heads D k], W^O [heads k c], and inputs [N n D], got {shapes} "
            f"and {jnp.shape(inputs)}"
        )
    (heads, dim, size), key, value, output = shapes
    fits = key == (heads, dim, size) and value[:2] == (heads, dim) and inputs.shape[2] == dim
    if not fits or output[:2] != (heads, value[2]) or 0 in (*inputs.shape, *output):
        raise ValueError(
            "sizes must match and be >= 1: query and key [heads D k], value [heads D v], output "
            f"[heads v c], inputs [N n D], got {shapes} and {inputs.shape}"
        )
    wanted = (*inputs.shape[:2], output[2])
    if targets is not None and jnp.shape(targets) != wanted:
        raise ValueError(
            f"targets must be [N n c] = {list(wanted)} for these inputs and W^O, got "
            f"{list(jnp.shape(targets))}"
        )
    for name, given in (("the layer", tuple(layer)), ("inputs", inputs), ("targets", targets)):
        for leaf in jax.tree.leaves(given):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"{name} must be of floating-point numbers, got {jnp.result_type(leaf)}; "
                    "convert with jnp.asarray(..., float)"
                )
        finite(name, given)
