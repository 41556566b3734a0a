r"""Deep residual networks of half-steps, with a scan over depth unless layers are few and large.

With blocks f, h, ... (any number of half-steps), depth L, and a scaling law
(:mod:`meanfield.nn.scaling`):

    T  <-  T + (kappa/L) (1/M_f) sum_j f(T, theta_{l,j})          for each layer l = 1..L,
    T  <-  T + (kappa/L) (1/M_h) sum_j h(T, w_{l,j})

in the mean-field law. Widths and depth are read from the particles' leading axes [l, m], so one
network serves all of them.

One trap: ``remat`` trades a second forward pass for memory that no longer grows with depth.

References:
    Gao et al. 2024, arXiv 2410.23610 (half-steps: our reading of the paper);
    Ding et al., eq. (7) (depth as time).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from meanfield import devices
from meanfield.checks import choice, count, non_negative
from meanfield.nn import inits
from meanfield.nn.block import Block, check_particles, chunked_mean
from meanfield.nn.scaling import Scaling, mean_field
from meanfield.notation import Mask, Tokens
from meanfield.tree import leading_axis
from meanfield.working_set import size, unrolled

Particles = tuple[Any, ...]
"""One tree of particles per block, each with leading axes [l, m]."""
PRECISIONS = ("bfloat16", "float32", "float64")
"""Precisions in which half-steps may compute."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A map of tokens by depth half-steps.

    Attributes:
        blocks: The half-steps of a layer, in order.
        depth: Number of layers of an initial draw.
        scaling: The scaling law.
        kappa: The constant before each half-step, one per block.
        remat: Whether the backward pass recomputes each layer.
        chunk: Particles of a half-step handled at once; chosen from shapes and device if None.
        axis: Mesh axis over which particles are spread, inside ``jax.shard_map``; none if None.
        compute: Precision of the half-steps; that of the particles if None.
    """

    blocks: tuple[Block, ...]
    depth: int
    scaling: Scaling
    kappa: tuple[float, ...]
    remat: bool
    chunk: int | None
    axis: str | None
    compute: Any

    def init(
        self, key: Any, *, width: int | Sequence[int], coupling: str = "independent"
    ) -> Particles:
        """Particles drawn i.i.d. from each block's initial measure; nested in width.

        Args:
            key: Random key.
            width: Particles per half-step: one number, or one per block.
            coupling: Over depth, ``"independent"`` or ``"path"`` (see :mod:`meanfield.nn.inits`).

        Raises:
            ValueError: If a width is not a positive integer or the coupling is unknown.
        """
        widths = list(width) if isinstance(width, Sequence) else [width] * len(self.blocks)
        if len(widths) != len(self.blocks):
            names = ", ".join(block.name for block in self.blocks)
            raise ValueError(f"width must be one number or one for each of {names}, got {widths}")
        return tuple(
            inits.particles(
                jax.random.fold_in(key, index),
                block.draw,
                depth=self.depth,
                width=size,
                coupling=coupling,
            )
            for index, (block, size) in enumerate(zip(self.blocks, widths, strict=True))
        )

    def check(self, particles: Particles) -> None:
        """Nothing, if the particles fit the blocks and share one depth.

        Args:
            particles: One tree per block.

        Raises:
            ValueError: If the number of trees, a shape or the depths do not fit.
        """
        if len(particles) != len(self.blocks):
            raise ValueError(
                f"particles must be {len(self.blocks)} trees, one per block, got {len(particles)}"
            )
        for block, tree in zip(self.blocks, particles, strict=True):
            check_particles(block, tree)
        depths = [leading_axis(tree) for tree in particles]
        if len(set(depths)) > 1:
            raise ValueError(f"all blocks must have one depth, got {depths}")

    def apply(self, particles: Particles, tokens: Tokens, mask: Mask | None = None) -> Tokens:
        """The tokens after all layers.

        Args:
            particles: One tree per block, leading axes [l, m].
            tokens: Tokens of one sample.
            mask: True where a key may be attended to.

        Raises:
            ValueError: If the particles do not fit the blocks.
        """
        return self._run(particles, tokens, mask, keep=False)[0]

    def states(
        self, particles: Particles, tokens: Tokens, mask: Mask | None = None
    ) -> tuple[Float[Array, "l n d"], ...]:
        """The tokens that every half-step reads, one array per block, along the layers.

        Args:
            particles: One tree per block, leading axes [l, m].
            tokens: Tokens of one sample.
            mask: True where a key may be attended to.

        Raises:
            ValueError: If the particles do not fit the blocks.
        """
        return self._run(particles, tokens, mask, keep=True)[1]

    def _run(self, particles: Particles, tokens: Tokens, mask: Mask | None, *, keep: bool) -> Any:
        """The tokens after all layers, and those that each block read if they are to be kept."""
        self.check(particles)
        shares = 1 if self.axis is None else jax.lax.axis_size(self.axis)
        steps = [
            kappa
            * self.scaling.depth_factor(leading_axis(tree))
            * self.scaling.width_factor(shares * leading_axis(tree, 1))
            * leading_axis(tree, 1)
            for kappa, tree in zip(self.kappa, particles, strict=True)
        ]

        factor = self.scaling.token_factor(tokens.shape[-1])

        def layer(tokens: Tokens, at_depth: Particles) -> tuple[Tokens, tuple[Tokens, ...]]:
            read = []
            for step, block, tree in zip(steps, self.blocks, at_depth, strict=True):
                read.append(factor * tokens)
                tokens = tokens + self._sum(block, step, read[-1], tree, mask)
            # What is not kept must not be stacked: a gradient would hold it.
            return tokens, tuple(read) if keep else ()

        if self.remat:
            return jax.lax.scan(jax.checkpoint(layer), tokens, particles)
        layers = leading_axis(particles)
        work = len(tokens) * size(particles) // layers
        # Without a loop, nothing that a layer keeps for the backward pass is copied into a stack.
        return jax.lax.scan(layer, tokens, particles, unroll=unrolled(layers, work))

    def _sum(self, block: Block, step: Any, tokens: Tokens, tree: Any, mask: Mask | None) -> Tokens:
        """``step`` times the block's mean, on all devices that hold a share of its particles."""
        dtype = tokens.dtype
        if self.axis is not None:
            tokens = devices.varying(tokens, self.axis)
        if self.compute is not None:
            tokens, tree = jax.tree.map(lambda leaf: leaf.astype(self.compute), (tokens, tree))
        update = step * chunked_mean(block, tokens, tree, mask, chunk=self.chunk).astype(dtype)
        return update if self.axis is None else jax.lax.psum(update, self.axis)


def network(
    blocks: Sequence[Block],
    *,
    depth: int,
    scaling: Scaling | None = None,
    kappa: float | Sequence[float] = 1.0,
    remat: bool = False,
    chunk: int | None = None,
    axis: str | None = None,
    compute: str | None = None,
) -> Network:
    """A residual network of any half-steps.

    Args:
        blocks: Half-steps of one layer, in order: ``(attention(...), mlp(...))``, or a user's own.
        depth: Number of layers L.
        scaling: The scaling law; ``mean_field()`` if None.
        kappa: The constant before each half-step: one number, or one per block.
        remat: Whether the backward pass recomputes each layer instead of storing it; layers are in
            a loop then, whatever their number.
        chunk: Particles of a half-step handled at once, in a loop that the backward pass computes
            anew: it sets memory and speed, the value changes to round-off. It need not divide the
            width. If None, all, or as many as keep their largest array in fast memory.
        axis: Mesh axis over which particles are spread (:mod:`meanfield.devices`): each device then
            holds an equal share of every half-step's particles. None for one device.
        compute: Precision in which half-steps compute: with ``"bfloat16"``, parameters, tokens
            between half-steps, exponents of attention and sums over chunks and devices stay in
            float32. None for the precision of the parameters, float32 or float64.

    Raises:
        ValueError: If ``depth`` or ``chunk`` is not a positive integer, ``blocks`` is empty, a
            kappa is negative, or ``compute`` is unknown.

    References:
        Gao et al. 2024, arXiv 2410.23610 (half-steps: our reading of the paper).

    >>> from meanfield import nn
    >>> net = network((nn.attention(dim=4, head_dim=2), nn.mlp(dim=4)), depth=2)
    >>> [heads.query.shape for heads in net.init(jax.random.key(0), width=8)[:1]]
    [(2, 8, 4, 2)]
    """
    if not blocks:
        raise ValueError("blocks must hold at least one half-step, got none")
    kappas: PyTree = [kappa] * len(blocks) if isinstance(kappa, int | float) else list(kappa)
    if len(kappas) != len(blocks):
        raise ValueError(f"kappa must be one number or {len(blocks)}, got {len(kappas)}")
    return Network(
        blocks=tuple(blocks),
        depth=count("depth", depth),
        scaling=scaling or mean_field(),
        kappa=tuple(non_negative("kappa", value) for value in kappas),
        remat=remat,
        chunk=None if chunk is None else count("chunk", chunk),
        axis=axis,
        compute=None if compute is None else jnp.dtype(choice("compute", compute, PRECISIONS)),
    )
