r"""One attention layer, with equal heads, by this library and by others.

Every contender is compiled for its arguments, as its user would have it, and gives the gradient
in its own parameters (:mod:`benchmarks.attention_problem`).

One trap: ``jax.nn.dot_product_attention``, and flax.nnx through it, take the softmax of float64
inputs in float32; in float64 they are left out.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from benchmarks.attention_problem import (
    Contender,
    Problem,
    Shape,
    compiled,
    merged,
    only_layer,
    parted,
    risk_gradient,
)
from meanfield import devices, flow, nn
from meanfield.nn.block import chunked_mean

OURS, EINSUM, TORCH = "meanfield", "einsum", "PyTorch SDPA"
SPREAD = "meanfield, a device per core"
LINEN, NNX, DOT_PRODUCT = "flax.linen", "flax.nnx", "jax.nn.dot_product_attention"
IN_SINGLE = "takes the softmax of float64 inputs in float32"
KERNELS: dict[str, nn.Kernel] = {
    "softmax": nn.softmax(),
    "gaussian": nn.gaussian(),
    "gaussian, normalised": nn.gaussian(normalize=True),
}


class Peer(NamedTuple):
    """A layer: its parameters from heads and back, its map of (parameters, tokens [b n d])."""

    parameters: Callable[[nn.Head], Any]
    heads: Callable[[Any], nn.Head]
    apply: Callable[[Any, jax.Array], jax.Array]


def of_peer(peer: Peer, heads: nn.Head, given: Problem) -> Contender:
    """The gradient of the mean square loss of a map of whole batches."""

    def loss(parameters: Any, tokens: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.sum((peer.apply(parameters, tokens) - targets) ** 2) / (2 * len(tokens))

    parameters = peer.parameters(heads)
    return compiled(
        jax.grad(loss), parameters, given.tokens, given.targets,
        output=lambda: jax.jit(peer.apply)(parameters, given.tokens),
        heads=peer.heads,
    )  # fmt: skip


def of_ours(
    apply: Callable[[Any, jax.Array], Any],
    heads: Any,
    given: Problem,
    mesh: Mesh | None = None,
    *,
    chunk: int | None = None,
) -> Contender:
    """The gradient of this library's risk of a map of one sample."""
    risk = flow.empirical_risk(apply, given.tokens, given.targets, chunk=chunk, mesh=mesh)
    theta = heads if mesh is None else devices.spread(heads, mesh, PartitionSpec())
    every = jax.jit(lambda heads, tokens: jax.lax.map(lambda one: apply(heads, one), tokens))
    return compiled(risk_gradient, risk, theta, output=lambda: every(heads, given.tokens))


def spread(shape: Shape, given: Problem) -> Contender | str:
    """One layer by this library, samples spread over devices; why not, where there is but one."""
    number = jax.device_count()
    if number == 1:
        flag = "--xla_force_host_platform_device_count"
        return f"one device: XLA_FLAGS={flag}={os.cpu_count()} makes one per core"
    return ours("softmax", shape, given, devices.mesh(data=number))


def ours(kernel: str, shape: Shape, given: Problem, mesh: Mesh | None = None) -> Contender:
    """One layer by this library."""
    block = nn.attention(dim=shape.dim, head_dim=shape.head_dim, kernel=KERNELS[kernel])

    def summed(heads: nn.Head, tokens: jax.Array) -> jax.Array:
        return shape.heads * chunked_mean(block, tokens, heads, None)

    return of_ours(summed, only_layer(given), given, mesh)


def peers(shape: Shape, dtype: str) -> dict[str, Peer | str]:
    """Softmax attention by the other libraries of jax; why not, for one that is left out."""
    sizes = {"num_heads": shape.heads, "qkv_features": shape.heads * shape.head_dim,
             "use_bias": False, "dtype": dtype, "param_dtype": dtype}  # fmt: skip
    linen: Any = flax.linen.MultiHeadDotProductAttention(out_features=shape.dim, **sizes)
    as_flax = functools.partial(nn.flax_parameters, output_factor=1.0)
    single = dtype != "float64"
    into_heads = functools.partial(parted, shape.head_dim)
    return {
        EINSUM: by_formula("softmax"),
        LINEN: Peer(
            as_flax, _of_flax, lambda found, tokens: linen.apply({"params": found}, tokens)
        ),
        NNX: Peer(as_flax, _of_flax, _nnx(shape, sizes)) if single else IN_SINGLE,
        DOT_PRODUCT: Peer(merged, into_heads, functools.partial(_dot_product, shape.head_dim))
        if single
        else IN_SINGLE,
    }


def by_formula(kernel: str) -> Peer:
    """All heads of all samples at once: the formula as it stands."""
    return Peer(lambda heads: heads, lambda heads: heads, _einsum(kernel))


def _einsum(kernel: str) -> Callable[[nn.Head, jax.Array], jax.Array]:
    def weights(queries: jax.Array, keys: jax.Array) -> jax.Array:
        scale = queries.shape[-1] ** -0.5
        products = jnp.einsum("bmik,bmjk->bmij", queries, keys)
        if kernel == "softmax":
            return jax.nn.softmax(scale * products, axis=-1)
        squares = [jnp.sum(leaf**2, axis=-1) for leaf in (queries, keys)]
        distances = squares[0][..., :, None] + squares[1][..., None, :] - 2 * products
        exponential = jnp.exp(-scale / 2 * distances)
        if kernel == "gaussian":
            return exponential
        return exponential / jnp.sum(exponential, axis=-1, keepdims=True)

    def apply(heads: nn.Head, tokens: jax.Array) -> jax.Array:
        queries, keys, values = (
            jnp.einsum("bnd,mdk->bmnk", tokens, leaf) for leaf in (heads.query, heads.key, heads[2])
        )
        mixed = jnp.einsum("bmij,bmjk->bmik", weights(queries, keys), values)
        return jnp.einsum("bmik,mkd->bid", mixed, heads.output)

    return apply


def _of_flax(found: Any) -> nn.Head:
    kernels = [np.asarray(found[name]["kernel"]) for name in ("query", "key", "value", "out")]
    heads: Any = (*(np.moveaxis(leaf, -2, -3) for leaf in kernels[:3]), kernels[3])
    return nn.Head(*heads)


def _nnx(shape: Shape, sizes: dict[str, Any]) -> Callable[[Any, jax.Array], jax.Array]:
    # Shapes alone: the module's own initial parameters are not used.
    module = nnx.eval_shape(
        lambda: nnx.MultiHeadAttention(
            in_features=shape.dim, decode=False, keep_rngs=False, rngs=nnx.Rngs(0), **sizes
        )
    )
    graph, state = nnx.split(module)

    def apply(parameters: Any, tokens: jax.Array) -> jax.Array:
        filled = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(filled, parameters)
        return nnx.merge(graph, filled)(tokens)

    return apply


def _dot_product(size: int, parameters: tuple[Any, Any], tokens: jax.Array) -> jax.Array:
    into, back = parameters
    parts = jnp.split(tokens @ into, 3, axis=-1)
    by_head = (part.reshape(*tokens.shape[:2], -1, size) for part in parts)
    fused = jax.default_backend() == "gpu" and tokens.dtype == jnp.bfloat16
    how = "cudnn" if fused else "xla"
    mixed = jax.nn.dot_product_attention(*by_head, implementation=how)
    return mixed.reshape(*tokens.shape[:2], -1) @ back
