"""Attention layers by PyTorch, where it is installed.

One trap: it is no dependency of this project, so every benchmark must do without it.
"""

import functools
import importlib
from typing import Any

import jax
import numpy as np

from benchmarks.attention_problem import Contender, Problem, merged, parted


def torch_layers(given: Problem, *, residual: float | None) -> Contender | str:
    """Merged projections about PyTorch's fused attention; why not, where it cannot be compared.

    Args:
        given: The heads and samples.
        residual: Factor of a layer's update, which is added to its tokens; None for one bare layer.
    """
    if jax.default_backend() != "cpu":
        return f"PyTorch is compared on a CPU only, got the device {jax.default_backend()}"
    try:
        # No dependency of this project: whoever has it can compare.
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return "PyTorch is not installed"
    size = given.heads.query.shape[-1]
    dtype = getattr(torch, given.tokens.dtype.name)

    def tensor(leaf: Any) -> Any:
        # By way of float64: numpy's sixteen bits are not PyTorch's.
        return torch.tensor(np.asarray(leaf, np.float64)).to(dtype)

    leaves = jax.tree.map(lambda leaf: tensor(leaf).requires_grad_(), merged(given.heads))
    inputs, targets = tensor(given.tokens), tensor(given.targets)

    def applied() -> Any:
        tokens = inputs
        for into, back in zip(*leaves, strict=True):
            parts = (tokens @ into).unflatten(-1, (3, -1, size)).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(*parts)
            update = mixed.transpose(1, 2).flatten(2) @ back
            tokens = update if residual is None else tokens + residual * update
        return tokens

    def run() -> Any:
        loss = ((applied() - targets) ** 2).sum() / (2 * len(inputs))
        return torch.autograd.grad(loss, leaves)

    return Contender(
        run,
        lambda: _on_host(torch, applied().detach()),
        functools.partial(_heads, torch, size, layers=residual is not None),
    )


def _on_host(torch: Any, leaf: Any) -> np.ndarray:
    # numpy reads no sixteen bits of PyTorch's.
    return leaf.to(torch.promote_types(leaf.dtype, torch.float32)).numpy()


def _heads(torch: Any, size: int, gradient: Any, *, layers: bool) -> Any:
    into, back = (_on_host(torch, leaf) for leaf in gradient)
    return parted(size, (into, back) if layers else (into[0], back[0]))
