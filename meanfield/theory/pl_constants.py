r"""Polyak-Lojasiewicz constants of the attention layer: |grad f|^2 >= 2 mu f, in closed form.

The gradient in each parameter is the residual E through one matrix, whose least singular value
bounds it from below:

    grad_{W_h^V} f = s B_h' E W_h^O'        mu = s sigma(B)^2 min_h sigma(W_h^O')^2
    grad_{W^O}  f = s A' E                  mu = s sigma(A)^2
    grad_{W_h^Q} f = s sum_ia x_ia (P_iah' E_ia)'    mu = s sigma(X)^2 min_ia sigma(P_ia)^2
    grad_{W_h^K} f = s sum_ib x_ib (L_ibh' E_i)'     mu = s sigma(X)^2 min_i  sigma(L_i)^2

P_ia = d out_ia/d (queries of token a, all heads) is c x Hk, L_i = d out_i/d (keys of sample i, all
heads) is nc x Hnk, and sigma the least singular value of *rows*, 0 if there are too many of them.
The sharp constant at a point is the least eigenvalue of the tangent kernel s J J', never smaller.

One trap: P_ia holds only what moves with the query of the same token, so the kernel must give row a
from query a alone; softmax and Gaussian do.

References:
    Song et al. 2024, arXiv 2411.07538 (for W^V, and for W^Q of one head).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.notation import Scalar
from meanfield.singular import eigenvalues, least_of_rows
from meanfield.theory.attention_layer import (
    AttentionLayer,
    Kernel,
    attention_features,
    attention_output,
    check_layer,
    head_outputs,
    risk_share,
    trained_names,
)


class Extremes(NamedTuple):
    """The least and the largest eigenvalue."""

    least: Scalar
    largest: Scalar


def pl_constant(
    kernel: Kernel,
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    /,
    *,
    trained: Sequence[str] = ("value",),
    average: bool = False,
) -> Scalar:
    """The constant mu of the trained parameters at a point: the sum of theirs; vmappable.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.
        trained: The names of the trained parameters.
        average: Whether the sum over samples is divided by N.

    Raises:
        ValueError: If sizes do not match, a value is not finite, or a name is unknown.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> float(pl_constant(lambda q, k: q @ k.T, layer, jnp.full((1, 1, 1), 2.0)))
    64.0
    """
    check_layer(layer, inputs)
    share = risk_share(inputs, average=average)
    return share * _total(kernel, layer, inputs, names=trained_names(trained))


@functools.partial(jax.jit, static_argnums=0, static_argnames="names")
def _total(
    kernel: Kernel, layer: AttentionLayer, inputs: Array, *, names: tuple[str, ...]
) -> Array:
    bounds = {"value": _of_value, "output": _of_output, "query": _of_query, "key": _of_key}
    found = [bounds[name](kernel, layer, inputs) for name in names]
    return sum(found[1:], start=found[0])


def tangent_extremes(
    kernel: Kernel,
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    /,
    *,
    trained: Sequence[str] = ("value",),
    average: bool = False,
) -> Extremes:
    """The extreme eigenvalues of s J J', J the derivative of all outputs in what is trained.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.
        trained: The names of the trained parameters.
        average: Whether the sum over samples is divided by N.

    Returns:
        The sharp PL constant at this point and, where f is quadratic, the sharp smoothness.

    Raises:
        ValueError: As :func:`pl_constant`.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> [float(x) for x in tangent_extremes(lambda q, k: q @ k.T, layer, jnp.full((1, 1, 1), 2.0))]
    [64.0, 64.0]
    """
    check_layer(layer, inputs)
    share = risk_share(inputs, average=average)
    values = _spectrum(kernel, layer, inputs, names=trained_names(trained))
    return Extremes(share * values[0], share * values[-1])


@functools.partial(jax.jit, static_argnums=0, static_argnames="names")
def _spectrum(
    kernel: Kernel, layer: AttentionLayer, inputs: Array, *, names: tuple[str, ...]
) -> Array:
    def outputs(parts):
        return attention_output(kernel, layer._replace(**parts), inputs).ravel()

    parts = {name: getattr(layer, name) for name in names}
    blocks = jax.tree.leaves(jax.jacrev(outputs)(parts))
    rows = jnp.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)
    return eigenvalues(rows @ rows.T)


def _of_value(kernel: Kernel, layer: AttentionLayer, inputs: Array) -> Scalar:
    features = attention_features(kernel, layer, inputs)
    outer = jnp.min(least_of_rows(jnp.swapaxes(layer.output, 1, 2)))
    return (least_of_rows(features.reshape(len(features), -1)) * outer) ** 2


def _of_output(kernel: Kernel, layer: AttentionLayer, inputs: Array) -> Scalar:
    parts = head_outputs(kernel, layer, inputs)
    return least_of_rows(parts.reshape(len(parts), -1)) ** 2


def _of_query(kernel: Kernel, layer: AttentionLayer, inputs: Array) -> Scalar:
    # Row a of the weights sees query a only: the sum over rows differentiates each by its own.
    def row(query, keys, values, token):
        queries = jnp.broadcast_to(
            query[:, None], (*query.shape[:1], keys.shape[1], query.shape[1])
        )
        return _mixed(kernel, queries, keys, values)[token]

    per_token = jax.vmap(jax.jacrev(row), in_axes=(1, None, None, 0))
    moved = jax.vmap(per_token, in_axes=(0, 0, 0, None))(
        *_parts(layer, inputs), jnp.arange(inputs.shape[1])
    )
    return _through_inputs(moved.reshape(*moved.shape[:3], -1), inputs)


def _of_key(kernel: Kernel, layer: AttentionLayer, inputs: Array) -> Scalar:
    def outputs(keys, queries, values):
        return _mixed(kernel, queries, keys, values).ravel()

    queries, keys, values = _parts(layer, inputs)
    moved = jax.vmap(jax.jacrev(outputs))(keys, queries, values)
    return _through_inputs(moved.reshape(*moved.shape[:2], -1), inputs)


def _through_inputs(derivatives: Array, inputs: Array) -> Scalar:
    tokens = inputs.reshape(-1, inputs.shape[-1])
    return (least_of_rows(tokens) * jnp.min(least_of_rows(derivatives))) ** 2


def _parts(layer: AttentionLayer, inputs: Array) -> tuple[Array, Array, Array]:
    """Queries, keys [b m n k], and the values u = X W^V W^O of every head [b m n c]."""
    queries = jnp.einsum("bnd,mdk->bmnk", inputs, layer.query)
    keys = jnp.einsum("bnd,mdk->bmnk", inputs, layer.key)
    values = jnp.einsum("bnd,mdk,mkc->bmnc", inputs, layer.value, layer.output)
    return queries, keys, values


def _mixed(kernel: Kernel, queries: Array, keys: Array, values: Array) -> Array:
    """The output [n c] of one sample from its heads' queries, keys [m n k] and values [m n c]."""
    return jnp.einsum("mab,mbc->ac", jax.vmap(kernel)(queries, keys), values)
