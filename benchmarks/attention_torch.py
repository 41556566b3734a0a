"""Attention layers by PyTorch, where it is installed.

One trap: it is no dependency of this project, so every benchmark must do without it.
"""

import importlib
from typing import Any

import jax
import numpy as np

from benchmarks.attention_peers import Contender, Problem, merged


def torch_layers(given: Problem, *, residual: float | None) -> Contender | str:
    """Merged projections about PyTorch's fused attention; why not, where it is not installed.

    Args:
        given: The heads and samples.
        residual: Factor of a layer's update, which is added to its tokens; None for one bare layer.
    """
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

    def layer(tokens: Any, into: Any, back: Any) -> Any:
        parts = (tokens @ into).unflatten(-1, (3, -1, size)).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(*parts)
        return mixed.transpose(1, 2).flatten(2) @ back

    def run() -> Any:
        tokens = inputs
        for into, back in zip(*leaves, strict=True):
            update = layer(tokens, into, back)
            tokens = update if residual is None else tokens + residual * update
        loss = ((tokens - targets) ** 2).sum() / (2 * len(inputs))
        # numpy reads no sixteen bits of PyTorch's.
        return [leaf.to(torch.promote_types(dtype, torch.float32))
                for leaf in torch.autograd.grad(loss, leaves)]  # fmt: skip

    return Contender(run)
