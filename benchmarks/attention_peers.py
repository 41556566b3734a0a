r"""One attention layer, with equal heads, by this library and by others.

    gradient of (1/2B) sum_b |A(T_b) - Y_b|^2 in the heads,      A(T) = sum_j S_j(T) T W_V^j W_O^j

Every contender is compiled for its arguments, as its user would have it, and gives the gradient
in its own parameters, which are those of the heads in another order: squared norms agree.

One trap: ``jax.nn.dot_product_attention``, and flax.nnx through it, take the softmax of float64
inputs in float32; in float64 they are left out.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

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


class Shape(NamedTuple):
    """Sizes of a layer and of its batch."""

    heads: int
    head_dim: int
    dim: int
    tokens: int
    batch: int


class Problem(NamedTuple):
    """Heads with leading axes [l, m] and samples [b n d], on the host."""

    heads: nn.Head
    tokens: np.ndarray
    targets: np.ndarray


class Peer(NamedTuple):
    """A layer: its parameters from the heads, and its map of (parameters, tokens [b n d])."""

    parameters: Callable[[nn.Head], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


class Contender(NamedTuple):
    """A gradient ready to be taken; bytes of its program are NaN where nobody counts them."""

    run: Callable[[], Any]
    compile_seconds: float = 0.0
    scratch_bytes: float = np.nan
    argument_bytes: float = np.nan
    output_bytes: float = np.nan


def problem(seed: int, shape: Shape, dtype: str, *, depth: int = 1) -> Problem:
    """Normal heads of variance 1/fan-in, tokens and targets: the same numbers in every dtype."""
    rng = np.random.default_rng(seed)

    def normal(*sizes: int, scale: float = 1.0) -> np.ndarray:
        # Numbers of sixteen bits in every precision: one problem for all of them.
        numbers = (scale * rng.standard_normal(sizes, np.float32)).astype(jnp.bfloat16)
        return numbers.astype(dtype)

    into = (depth, shape.heads, shape.dim, shape.head_dim)
    fan_in = shape.dim**-0.5
    query, key, value = (normal(*into, scale=fan_in) for _ in range(3))
    back = (depth, shape.heads, shape.head_dim, shape.dim)
    output = normal(*back, scale=shape.head_dim**-0.5)
    tokens, targets = (normal(shape.batch, shape.tokens, shape.dim) for _ in range(2))
    heads: Any = (query, key, value, output)
    return Problem(nn.Head(*heads), tokens, targets)


def compiled(gradient: Callable[..., Any], *arguments: Any) -> Contender:
    """The gradient as one program for these arguments, and what that program needs."""
    arguments = jax.tree.map(jnp.asarray, arguments)
    begin = time.perf_counter()
    program = jax.jit(gradient).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    memory: Any = program.memory_analysis()
    return Contender(
        lambda: jax.block_until_ready(program(*arguments)),
        seconds,
        memory.temp_size_in_bytes,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
    )


def of_peer(apply: Callable[[Any, jax.Array], Any], parameters: Any, given: Problem) -> Contender:
    """The gradient of the mean square loss of a map of whole batches."""

    def loss(parameters: Any, tokens: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.sum((apply(parameters, tokens) - targets) ** 2) / (2 * len(tokens))

    return compiled(jax.grad(loss), parameters, given.tokens, given.targets)


def of_ours(
    apply: Callable[[Any, jax.Array], Any], heads: Any, given: Problem, mesh: Mesh | None = None
) -> Contender:
    """The gradient of this library's risk of a map of one sample, in chunks of its own choice."""
    risk = flow.empirical_risk(apply, given.tokens, given.targets, mesh=mesh)
    if mesh is not None:
        heads = devices.spread(heads, mesh, PartitionSpec())
    return compiled(risk_gradient, risk, heads)


def risk_gradient(risk: Any, heads: Any) -> Any:
    """The gradient of a risk, as a function of its data too: they are no constants of a program."""
    return jax.grad(risk)(heads)


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

    return of_ours(summed, nn.Head(*(leaf[0] for leaf in given.heads)), given, mesh)


def peers(shape: Shape, dtype: str) -> dict[str, Peer | str]:
    """Softmax attention by the other libraries of jax; why not, for one that is left out."""
    sizes = {"num_heads": shape.heads, "qkv_features": shape.heads * shape.head_dim,
             "use_bias": False, "dtype": dtype, "param_dtype": dtype}  # fmt: skip
    linen: Any = flax.linen.MultiHeadDotProductAttention(out_features=shape.dim, **sizes)
    as_flax = functools.partial(nn.flax_parameters, output_factor=1.0)
    single = dtype != "float64"
    return {
        EINSUM: Peer(lambda heads: heads, einsum("softmax")),
        LINEN: Peer(as_flax, lambda found, tokens: linen.apply({"params": found}, tokens)),
        NNX: Peer(as_flax, _nnx(shape, sizes)) if single else IN_SINGLE,
        DOT_PRODUCT: Peer(merged, functools.partial(_dot_product, shape.head_dim))
        if single
        else IN_SINGLE,
    }


def einsum(kernel: str) -> Callable[[nn.Head, jax.Array], jax.Array]:
    """All heads of all samples at once: the formula as it stands."""

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


def squared_norm(gradient: Any) -> float:
    """The squared norm of a gradient, summed in double precision."""
    return sum(
        float(np.sum(np.asarray(leaf, np.float64) ** 2)) for leaf in jax.tree.leaves(gradient)
    )


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


def merged(heads: nn.Head) -> tuple[Any, Any]:
    """Kernels [l d 3mk] into queries, keys and values of all heads, and [l mk d] back."""
    *lead, width, dim, size = heads.query.shape
    kernels: Any = heads[:3]
    into = [np.moveaxis(leaf, -3, -2).reshape(*lead, dim, width * size) for leaf in kernels]
    return np.concatenate(into, axis=-1), heads.output.reshape(*lead, width * size, dim)


def _dot_product(size: int, parameters: tuple[Any, Any], tokens: jax.Array) -> jax.Array:
    into, back = parameters
    parts = jnp.split(tokens @ into, 3, axis=-1)
    by_head = (part.reshape(*tokens.shape[:2], -1, size) for part in parts)
    fused = jax.default_backend() == "gpu" and tokens.dtype == jnp.bfloat16
    how = "cudnn" if fused else "xla"
    mixed = jax.nn.dot_product_attention(*by_head, implementation=how)
    return mixed.reshape(*tokens.shape[:2], -1) @ back
