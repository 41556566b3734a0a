r"""Embeddings of samples as tokens, and readouts of tokens as outputs.

    patches     image [h w c] -> class token and patches, T_a = patch_a W + b + position_a
    byte_text   ids [n] (0 = padding) -> T_a = table[id_a] + position_a, padding masked as keys
    identity    tokens as they are (in-context regression)
    label_read  one coordinate of one token, Read[T] = T[-1, -1]
    class_read  W^T pool(T) + b, pool = class token or mean of the unmasked tokens

An embedding is ``(init(key) -> params, apply(params, sample) -> (tokens, mask))``, a readout
``(init(key) -> params, apply(params, tokens, mask) -> outputs)``.

One trap: embeddings and readouts are no particles: they train in time scale 1 and are not decayed
unless asked.

References:
    Gao et al. 2024, arXiv 2410.23610 (Read).
    Dosovitskiy et al. 2021, arXiv 2010.11929 (patches and class token).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from meanfield.checks import choice, count
from meanfield.nn.positions import positions_of
from meanfield.nn.products import matmul
from meanfield.notation import Mask, Tokens


class Embedding(NamedTuple):
    """From a sample to tokens.

    Attributes:
        init: From a key to parameters.
        apply: From (parameters, sample) to (tokens, mask).
    """

    init: Callable[[Any], PyTree]
    apply: Callable[[PyTree, Any], tuple[Tokens, Mask | None]]


class Readout(NamedTuple):
    """From tokens to outputs.

    Attributes:
        init: From a key to parameters.
        apply: From (parameters, tokens, mask) to outputs.
    """

    init: Callable[[Any], PyTree]
    apply: Callable[[PyTree, Tokens, Mask | None], Float[Array, "..."]]


def identity() -> Embedding:
    """Samples that are tokens already, without parameters.

    >>> identity().apply((), jnp.ones((3, 2)))[0].shape
    (3, 2)
    """
    return Embedding(lambda key: (), lambda params, tokens: (tokens, None))


def patches(
    *,
    shape: tuple[int, int, int],
    patch: int,
    dim: int,
    positions: str = "learned",
) -> Embedding:
    """Square image patches behind a class token.

    Args:
        shape: Image shape (height, width, channels).
        patch: Side of a patch, in pixels.
        dim: Token dimension d.
        positions: ``"learned"``, ``"sinusoidal"`` or ``"none"``.

    Raises:
        ValueError: If sizes do not fit each other, or ``positions`` is unknown.

    >>> vit = patches(shape=(8, 8, 1), patch=4, dim=16)
    >>> vit.apply(vit.init(jax.random.key(0)), jnp.ones((8, 8, 1)))[0].shape
    (5, 16)
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be (height, width, channels), got {shape}")
    height, width, channels = (
        count(name, size) for name, size in zip(("height", "width", "channels"), shape, strict=True)
    )
    count("patch", patch)
    if height % patch or width % patch:
        raise ValueError(f"patch must divide the image of {height} x {width} pixels, got {patch}")
    rows, columns = height // patch, width // patch
    size = patch * patch * channels
    place, place_init = positions_of(positions, rows * columns + 1, dim)

    def init(key: Any) -> PyTree:
        keys = jax.random.split(key, 3)
        return {
            "projection": jax.random.normal(keys[0], (size, dim)) * size**-0.5,
            "class_token": jax.random.normal(keys[1], (dim,)),
            "positions": place_init(keys[2]),
        }

    def apply(params: PyTree, image: Float[Array, "h w c"]) -> tuple[Tokens, None]:
        if image.shape != shape:
            raise ValueError(f"images must have shape {shape}, got {image.shape}")
        grid = image.reshape(rows, patch, columns, patch, channels).transpose(0, 2, 1, 3, 4)
        tokens = matmul(grid.reshape(rows * columns, size), params["projection"])
        tokens = jnp.concatenate([params["class_token"][None, :], tokens])
        return tokens + place(params["positions"], len(tokens)), None

    return Embedding(init, apply)


def byte_text(
    *, length: int, dim: int, vocabulary: int = 257, positions: str = "learned"
) -> Embedding:
    """Text as bytes: id = byte + 1, 0 = padding, which is masked as a key.

    Args:
        length: Longest sequence.
        dim: Token dimension d.
        vocabulary: Number of ids, padding included. A token whose id is outside is NaN.
        positions: ``"learned"``, ``"sinusoidal"`` or ``"none"``.

    Raises:
        ValueError: If a size is not a positive integer, or a sequence is longer than ``length``.

    >>> text = byte_text(length=4, dim=2)
    >>> text.apply(text.init(jax.random.key(0)), jnp.array([105, 2, 0, 0]))[1].tolist()
    [True, True, False, False]
    """
    count("length", length)
    count("vocabulary", vocabulary)
    place, place_init = positions_of(positions, length, dim)

    def init(key: Any) -> PyTree:
        key_table, key_positions = jax.random.split(key)
        return {
            "table": jax.random.normal(key_table, (vocabulary, dim)),
            "positions": place_init(key_positions),
        }

    def apply(params: PyTree, ids: Int[Array, "n"]) -> tuple[Tokens, Mask]:
        if len(ids) > length:
            raise ValueError(
                f"a sequence must have at most {length} tokens, got {len(ids)}: "
                "cut it or raise length"
            )
        # Nothing can be raised inside `jit`; without NaN the last row would stand for any id.
        known = (ids >= 0) & (ids < vocabulary)
        rows = jnp.where(known[:, None], params["table"][ids], jnp.nan)
        return rows + place(params["positions"], len(ids)), ids != 0

    return Embedding(init, apply)


def label_read(*, token: int = -1, coordinate: int = -1) -> Readout:
    """One coordinate of one token, without parameters: the label slot of the query.

    Args:
        token: Index of the token.
        coordinate: Index of the coordinate.

    References:
        Gao et al. 2024, arXiv 2410.23610 (Read).

    >>> float(label_read().apply((), jnp.arange(6.0).reshape(3, 2), None))
    5.0
    """
    return Readout(lambda key: (), lambda params, tokens, mask: tokens[token, coordinate])


def class_read(*, dim: int, classes: int, pool: str = "class_token") -> Readout:
    """A linear map of the pooled tokens to class logits.

    Args:
        dim: Token dimension d.
        classes: Number of classes c.
        pool: ``"class_token"`` (the first token) or ``"mean"`` (over unmasked tokens).

    Raises:
        ValueError: If a size or ``pool`` is not known, or a mean is asked under a mask of pairs.

    >>> read = class_read(dim=2, classes=3)
    >>> read.apply(read.init(jax.random.key(0)), jnp.ones((4, 2)), None).shape
    (3,)
    """
    count("dim", dim)
    count("classes", classes)
    choice("pool", pool, ("class_token", "mean"))

    def init(key: Any) -> PyTree:
        return {
            "weight": jax.random.normal(key, (dim, classes)) * dim**-0.5,
            "bias": jnp.zeros(classes),
        }

    def apply(params: PyTree, tokens: Tokens, mask: Mask | None) -> Float[Array, "c"]:
        if pool == "class_token":
            pooled = tokens[0]
        elif mask is None:
            pooled = jnp.mean(tokens, axis=0)
        elif mask.shape != tokens.shape[:1]:
            raise ValueError(
                f"mean pooling needs a mask per token, of shape {tokens.shape[:1]}, "
                f"got {mask.shape}: give a mask of keys, or pool the class token"
            )
        else:
            kept = mask.astype(tokens.dtype)
            pooled = kept @ tokens / jnp.maximum(jnp.sum(kept), 1)
        return pooled @ params["weight"] + params["bias"]

    return Readout(init, apply)
