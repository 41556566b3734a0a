r"""The form in which attention is computed: by rows, all at once, or fused on a GPU.

    plain    weights of as many queries as fit fast memory          (:mod:`meanfield.nn.rows`)
    cudnn    no weights at all, in sixteen bits, on an NVIDIA GPU   (:mod:`meanfield.nn.fused`)

One trap: which form is taken is settled when a program is traced, from shapes, dtype and the
default device.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from meanfield.checks import choice, count
from meanfield.nn.dot_product import attended
from meanfield.nn.fused import added_dims, fused_mixed
from meanfield.nn.kernels import Kernel, RowKernel
from meanfield.nn.masks import RowMask
from meanfield.nn.rows import Keys, Queries, mixed_in_rows, rows_at_once

Mix = Callable[..., Queries]
"""A function ``(queries, keys, values, mask) -> mixed values`` of all heads."""
FORMS = ("cudnn", "plain")
"""Forms that may be asked for by name."""
LEAST_CAPABILITY = 8.0
"""Compute capability of the oldest GPUs that cuDNN's fused attention runs on."""
MOST_DIMS = {LEAST_CAPABILITY: 128, 9.0: 256}
"""Head dimensions that it takes, from which compute capability on."""


def mixing(kernel: Kernel, /, *, rows: int | None = None, fused: str | None = None) -> Mix:
    """How values are mixed by a kernel's weights.

    Args:
        kernel: The attention kernel.
        rows: Queries that the plain form handles at once; if None, as many as keep the weights of
            one head in fast memory, or all where the kernel does not say that its rows are
            independent.
        fused: ``"cudnn"``, ``"plain"``, or None for cuDNN where it can be had.

    Raises:
        ValueError: If ``rows`` is not a positive integer, or is given for such a kernel; if
            ``fused`` is no form, or cuDNN is asked for and cannot be had.

    >>> from meanfield.nn import linear
    >>> ones = jnp.ones((3, 2, 1))
    >>> mixing(linear(), rows=1)(ones, ones, ones, None)[0].tolist()
    [[3.0], [3.0]]
    """
    if rows is not None and count("rows", rows) and not isinstance(kernel, RowKernel):
        raise ValueError(
            "rows must be left out for a kernel that does not say that its rows are independent, "
            f"got rows={rows} and {_name(kernel)}: if each row of it depends on its own query, its "
            "mask and all keys alone, give nn.RowKernel(weights=...) of it"
        )
    if fused is not None:
        choice("fused", fused, FORMS)
    known: Any = getattr(kernel, "exponential", None)

    def mix(queries: Queries, keys: Keys, values: Keys, mask: RowMask | None) -> Queries:
        if fused != "plain" and _by_cudnn(kernel, queries, mask, asked=fused == "cudnn"):
            return fused_mixed(known, queries, keys, values, mask, attend=attended("cudnn"))
        some = rows or rows_at_once(kernel, queries, keys)
        return mixed_in_rows(kernel, queries, keys, values, mask, rows=some)

    return mix


def _by_cudnn(kernel: Kernel, queries: Array, mask: RowMask | None, *, asked: bool) -> bool:
    """Whether cuDNN computes attention to these; the reason why not where that is a surprise."""
    plain, surprise = _elsewhere(queries), _unknown(kernel, queries, mask)
    if asked and (plain or surprise):
        raise ValueError(
            f'fused="cudnn" needs {plain or surprise}; leave fused out for the form that fits, '
            'or give fused="plain"'
        )
    if not plain and surprise:
        _warned(surprise)
    return not (plain or surprise)


def _elsewhere(queries: Array) -> str | None:
    """What is missing for any fused attention; None on a GPU in sixteen bits."""
    if jax.default_backend() != "gpu":
        return f"an NVIDIA GPU, got the device {jax.default_backend()}"
    if queries.dtype not in (jnp.bfloat16, jnp.float16):
        return (
            f"tokens and heads in bfloat16 or float16, got {queries.dtype}: "
            'nn.network(compute="bfloat16") casts them'
        )
    return None


def _unknown(kernel: Kernel, queries: Array, mask: RowMask | None) -> str | None:
    """What is missing for the fused form of this kernel; None if nothing is."""
    known = getattr(kernel, "exponential", None)
    if known is None:
        return f"the kernel softmax or gaussian, got {_name(kernel)}"
    if known.bandwidth is not None and queries.dtype == jnp.float16:
        return "bfloat16 for a Gaussian kernel, got float16, whose range is too small"
    capability = _capability()
    if capability < LEAST_CAPABILITY:
        return f"a GPU of compute capability {LEAST_CAPABILITY}, got {capability}"
    most = max(dims for least, dims in MOST_DIMS.items() if capability >= least)
    most -= added_dims(known, mask, len(queries))
    size = queries.shape[-1]
    if size > most:
        return f"head_dim <= {most} for this kernel on this GPU, got {size}"
    return None


def _name(kernel: Kernel) -> str:
    """What made the kernel, without an address: one cause has one warning."""
    made = getattr(kernel, "weights", kernel)
    return getattr(made, "__qualname__", type(made).__name__).split(".<locals>")[0]


def _capability() -> float:
    """Compute capability of the default GPU; 0 where it has none."""
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0.0))
    except ValueError:
        # Other makers' GPUs have names there.
        return 0.0


@functools.cache
def _warned(reason: str) -> None:
    """Says once in a process why the plain form is taken."""
    warnings.warn(
        f"attention takes the plain form: a fused one needs {reason}; "
        'fused="plain" says that this is meant',
        stacklevel=2,
    )
