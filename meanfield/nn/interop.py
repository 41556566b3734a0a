r"""Heads of Flax attention modules as particles, and back.

Flax's multi-head attention (nnx and linen) is a *sum* over heads, with queries over sqrt(k):

    Flax(T) = sum_j softmax(T W_Q,j (T W_K,j)^T / sqrt(k)) T W_V,j W_O,j + b_O,

a :class:`Head` stands in a *mean*, so W_O carries the factor M: then ``block.mean`` of the imported
heads, with the kernel ``softmax()``, is the module's output. Another ``output_factor`` fits another
law: kappa depth_factor(L) width_factor(M) output_factor = 1 makes a half-step T + Flax(T).

A head has no biases. That of the keys adds to every logit of a row one number and drops out of the
softmax; the others are written into one more token coordinate, the last, that is 1 in every token
(``biases="constant"``). The bias of the output is then one more head, which reads that 1 only.

One trap: without dropout, flax.nnx takes the softmax of float64 inputs in float32: it agrees with
these heads, and with flax.linen, to float32 round-off only.

References:
    Vaswani et al. 2017, arXiv 1706.03762, Section 3.2.2.
    Ainslie et al. 2023, arXiv 2305.13245 (grouped queries: heads that share keys and values).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from meanfield.checks import choice, positive
from meanfield.nn.attention import Head

NAMES = ("query", "key", "value", "out")


def heads_from_flax(
    attention: Any, /, *, output_factor: float | None = None, biases: str = "refuse"
) -> Head:
    """The heads of a Flax attention module as particles.

    Args:
        attention: A ``flax.nnx.MultiHeadAttention`` or its state, or the parameters of a
            ``flax.linen.MultiHeadDotProductAttention``; or a list of these, one per layer. Leaves
            may have leading axes (a scan over layers). Parameters do not tell which attention
            function uses them: it must be Flax's own.
        output_factor: What the output matrices are multiplied by; the number of heads M if None,
            for the mean over heads.
        biases: ``"refuse"`` those that a head cannot carry, or read a ``"constant"`` coordinate 1
            appended to every token.

    Returns:
        Heads with leading axis [m]; of a list [l, m]. Grouped queries get keys and values of their
        own.

    Raises:
        ValueError: If a parameter is missing or unknown (normalised queries), dimensions differ, or
            biases are not zero and refused.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, Section 3.2.2.

    >>> into, out = {"kernel": jnp.ones((4, 3, 2))}, {"kernel": jnp.ones((3, 2, 4))}
    >>> heads_from_flax({"query": into, "key": into, "value": into, "out": out}).output[0, 0]
    Array([3., 3., 3., 3.], dtype=float32)
    """
    choice("biases", biases, ("refuse", "constant"))
    if isinstance(attention, list | tuple):
        parts = [_parameters(each) for each in attention]
        shapes = [{name: leaf.shape for name, leaf in kernels.items()} for kernels, _ in parts]
        if not parts or any(shape != shapes[0] for shape in shapes):
            raise ValueError(
                "layers must be at least one, with kernels of one shape, got queries of shapes "
                f"{[shape['query'] for shape in shapes]}; import layers of other sizes one by one"
            )
        # Layers without a bias stand beside layers that have one.
        kernels, offsets = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
            for each in zip(*parts, strict=True)
        )
    else:
        kernels, offsets = _parameters(attention)
    query, key, value = (jnp.moveaxis(kernels[name], -2, -3) for name in NAMES[:3])
    heads = Head(query, key, value, kernels["out"])
    if biases == "constant":
        heads = _with_constant(heads, offsets)
    else:
        _refuse(offsets)
    width = heads.output.shape[-3]
    factor = width if output_factor is None else positive("output_factor", output_factor)
    return heads._replace(output=factor * heads.output)


def flax_parameters(
    heads: Head, /, *, output_factor: float | None = None, biases: str = "none"
) -> dict[str, dict[str, Any]]:
    """The parameters of a Flax attention module whose heads are these particles.

    For linen they are ``{"params": flax_parameters(heads)}``. For nnx, update the state:
    ``state = nnx.state(module, nnx.Param); nnx.replace_by_pure_dict(state, flax_parameters(heads));
    nnx.update(module, state)``.

    Args:
        heads: Particles with leading axis [m], or [l, m] for a scan over layers.
        output_factor: What the output matrices were multiplied by (:func:`heads_from_flax`).
        biases: ``"none"`` for a module without, ``"zero"``, or those that stand in the
            ``"constant"`` coordinate of the heads.

    Returns:
        Kernels, and biases, of ``query``, ``key``, ``value`` and ``out``.

    Raises:
        ValueError: If a head writes to the constant coordinate.

    >>> heads = Head(*(jnp.ones((3, 4, 2)) for _ in range(3)), jnp.ones((3, 2, 4)))
    >>> {name: leaf["kernel"].shape for name, leaf in flax_parameters(heads).items()}
    {'query': (4, 3, 2), 'key': (4, 3, 2), 'value': (4, 3, 2), 'out': (3, 2, 4)}
    """
    choice("biases", biases, ("none", "zero", "constant"))
    width = heads.output.shape[-3]
    factor = width if output_factor is None else positive("output_factor", output_factor)
    heads = heads._replace(output=heads.output / factor)
    offsets: dict[str, Any] = {}
    if biases == "constant":
        heads, offsets = _without_constant(heads)
    elif biases == "zero":
        zeros = jnp.zeros_like(heads.output)
        offsets = dict.fromkeys(NAMES[:3], zeros[..., 0]) | {"out": zeros[..., 0, 0, :]}
    found = {
        name: {"kernel": jnp.moveaxis(leaf, -3, -2)}
        for name, leaf in zip(NAMES[:3], heads[:3], strict=True)
    }
    found["out"] = {"kernel": heads.output}
    for name, offset in offsets.items():
        found[name]["bias"] = offset
    return found


def _parameters(attention: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kernels and biases by name, each query head with its own key and value."""
    tree = _plain(attention)
    tree = tree.get("params", tree)
    if set(tree) != set(NAMES) or any("kernel" not in tree[name] for name in tree):
        raise ValueError(
            f"attention must have kernels of {', '.join(NAMES)}, got {sorted(tree)}; "
            "give the parameters of one attention module, without normalised queries or keys"
        )
    kernels = {name: jnp.asarray(tree[name]["kernel"]) for name in NAMES}
    *_, dim, width, size = kernels["query"].shape
    shared = kernels["key"].shape[-2]
    expected = dict.fromkeys(("key", "value"), (dim, shared, size)) | {"out": (width, size, dim)}
    for name, shape in expected.items():
        if kernels[name].shape[-3:] != shape or width % shared:
            raise ValueError(
                f"the kernel of {name} must end in {shape} beside queries of {(dim, width, size)}, "
                f"got {kernels[name].shape}: a head reads and writes tokens of one dimension"
            )
    lead = kernels["query"].shape[:-3]
    shapes = {name: (*lead, *kernels[name].shape[-2:]) for name in NAMES[:3]}
    offsets = {
        name: jnp.asarray(_bias(tree[name], shapes.get(name, (*lead, dim)), kernels[name].dtype))
        for name in NAMES
    }
    for name in ("key", "value"):
        kernels[name] = jnp.repeat(kernels[name], width // shared, axis=-2)
        offsets[name] = jnp.repeat(offsets[name], width // shared, axis=-2)
    return kernels, offsets


def _bias(layer: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> Any:
    bias = layer.get("bias")
    return jnp.zeros(shape, dtype) if bias is None else bias


def _plain(attention: Any) -> dict[str, Any]:
    if type(attention) is dict:
        return attention
    from flax import nnx  # Half a second, for those who import modules.

    if isinstance(attention, nnx.Module):
        given = getattr(attention, "attention_fn", nnx.dot_product_attention)
        if given is not nnx.dot_product_attention:
            raise ValueError(
                f"attention_fn must be flax.nnx.dot_product_attention, got {given}; give "
                "nnx.state(module, nnx.Param), and a block with the kernel of that function"
            )
        attention = nnx.state(attention, nnx.Param)
    if isinstance(attention, nnx.State):
        return nnx.to_pure_dict(attention)
    if isinstance(attention, Mapping):
        return dict(attention)
    raise ValueError(
        "attention must be an nnx module, its state, a tree of parameters, or a list of these, "
        f"got {type(attention).__name__}"
    )


def _refuse(offsets: dict[str, Any]) -> None:
    for name in ("query", "value", "out"):
        if jnp.any(offsets[name] != 0):
            raise ValueError(
                f"the bias of {name} must be zero, for a head has none, got entries up to "
                f"{float(jnp.max(jnp.abs(offsets[name]))):.3g}; append a coordinate 1 to every "
                'token and give biases="constant"'
            )


def _with_constant(heads: Head, offsets: dict[str, Any]) -> Head:
    query, key, value = (
        jnp.concatenate([leaf, offsets[name][..., None, :]], axis=-2)
        for name, leaf in zip(NAMES[:3], heads[:3], strict=True)
    )
    heads = Head(
        query, key, value, jnp.concatenate([heads.output, 0 * heads.output[..., :1]], axis=-1)
    )
    if not jnp.any(offsets["out"] != 0):
        return heads
    # Its value is the constant 1 in the first coordinate, whatever it attends to.
    nothing = jnp.zeros_like(heads.query[..., :1, :, :])
    more = Head(
        nothing,
        nothing,
        nothing.at[..., -1, 0].set(1),
        jnp.zeros_like(heads.output[..., :1, :, :]).at[..., 0, 0, :-1].set(offsets["out"]),
    )
    return jax.tree.map(lambda *both: jnp.concatenate(both, axis=-3), heads, more)


def _without_constant(heads: Head) -> tuple[Head, dict[str, Any]]:
    if jnp.any(heads.output[..., -1] != 0):
        raise ValueError(
            "heads must leave the constant coordinate alone, got outputs up to "
            f"{float(jnp.max(jnp.abs(heads.output[..., -1]))):.3g} in it; "
            "hold output[..., -1] at 0 while they train"
        )
    offsets = {name: leaf[..., -1, :] for name, leaf in zip(NAMES[:3], heads[:3], strict=True)}
    query, key, value = (leaf[..., :-1, :] for leaf in heads[:3])
    heads = Head(query, key, value, heads.output[..., :-1])
    last = jax.tree.map(lambda leaf: leaf[..., -1, :, :], heads)
    only = offsets["value"][..., -1, :]
    reads = [*last[:3], offsets["query"][..., -1, :], offsets["key"][..., -1, :]]
    if not jnp.all(jnp.any(only != 0, axis=-1)) or any(bool(jnp.any(leaf != 0)) for leaf in reads):
        return heads, offsets | {"out": jnp.zeros_like(last.output[..., 0, :])}
    # The last head reads the constant and nothing else: it is the bias of the output.
    bias = jnp.einsum("...k,...kd->...d", only, last.output)
    offsets = {name: offset[..., :-1, :] for name, offset in offsets.items()}
    return jax.tree.map(lambda leaf: leaf[..., :-1, :, :], heads), offsets | {"out": bias}
