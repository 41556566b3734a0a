r"""Tokens and adjoint of a network of half-steps: what the first variation needs of the network.

With blocks f, h, ... given by their means over particles, depth L, and a risk of the final tokens,

    T(next) = T + (kappa/L) (1/M) sum_j f(T, theta_j)                            forward,
    p       = p(next) + (kappa/L) (1/M) sum_j (d_T f(T, theta_j))* p(next)       backward,

    p at the end = d risk / d tokens.

A half-step of a layer meets particles only through the tokens T that it reads and the *force*
kappa p(next) on its update: one :class:`States` per block holds both.

One trap: the expectation over data stands inside the risk, so forces of a mean over samples carry
the factor 1/N and the first variation is a plain sum over samples.

References:
    Gao et al. 2024, arXiv 2410.23610 (half-steps: our reading of the paper);
    Ding et al., eq. (7), (11) (the depth ODE and its adjoint; these are their discrete twins).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree, Shaped

from meanfield.checks import finite, non_negative
from meanfield.notation import Mask, Scalar, Tokens
from meanfield.tree import leading_axis

Encoder = Callable[[Tokens, Any, Mask | None], Tokens]
"""f(tokens [n d], particle, mask) -> update [n d]; as a mean, the particles have one axis [m]."""

TokenRisk = Callable[[Any], Scalar]
"""From the final tokens of all samples [b n d] to a number."""

Masks = Shaped[Array, "b ..."] | None
"""The mask of every sample, or None."""


class States(NamedTuple):
    """What the particles of one block meet at the depths of a network or of its limit.

    Attributes:
        depths: Where, in [0, 1]: the left ends l/L of the layers.
        tokens: The tokens that the half-step reads.
        forces: kappa times the adjoint of what it returns.
        masks: The mask of every sample, or None.
    """

    depths: Float[Array, "l"]
    tokens: Float[Array, "l b n d"]
    forces: Float[Array, "l b n d"]
    masks: Masks = None


def network_states(
    means: Sequence[Encoder],
    risk: TokenRisk,
    particles: tuple[Any, ...],
    tokens: Float[Array, "b n d"],
    /,
    *,
    masks: Masks = None,
    kappa: float | Sequence[float] = 1.0,
) -> tuple[States, ...]:
    """Tokens and forces at every half-step of a mean-field network, by the discrete adjoint.

    Args:
        means: The mean over particles of every half-step, in order (``block.mean``).
        risk: The risk, from the final tokens of all samples to a number.
        particles: One tree per half-step, leading axes [l, m].
        tokens: The tokens of all samples before the first layer.
        masks: The mask of every sample, True where a key may be attended to.
        kappa: The constant before each half-step: one number, or one per block.

    Returns:
        One :class:`States` per block, at the depths 0, 1/L, ..., (L-1)/L.

    Raises:
        ValueError: If the numbers of means, trees and kappas differ, trees differ in depth, or
            tokens are not finite.

    References:
        Ding et al., eq. (11), in the half-steps of the network.

    >>> drift = lambda T, theta, mask: jnp.mean(theta) * T
    >>> (states,) = network_states([drift], jnp.sum, (jnp.ones((1, 2)),), jnp.ones((1, 1, 1)))
    >>> states.tokens.ravel().tolist(), states.forces.ravel().tolist()
    ([1.0], [1.0])
    """
    kappas = check_network(means, particles, kappa)
    finite("tokens", tokens)
    return _network_states(
        tuple(means), as_partial(risk), particles, tokens, masks=masks, kappas=kappas
    )


@functools.partial(jax.jit, static_argnums=0)
def _network_states(means, risk, particles, tokens, *, masks, kappas):
    depth = leading_axis(particles[0])

    def forward(tokens, layer):
        visited = []
        for kappa, mean, tree in zip(kappas, means, layer, strict=True):
            visited.append(tokens)
            tokens = tokens + kappa / depth * batched(mean, tree, masks)(tokens)
        return tokens, tuple(visited)

    def backward(adjoint, layer_and_tokens):
        forces = []
        for kappa, mean, tree, read in zip(
            *(reversed(part) for part in (kappas, means, *layer_and_tokens)), strict=True
        ):
            forces.append(kappa * adjoint)
            _, pull = jax.vjp(batched(mean, tree, masks), read)
            adjoint = adjoint + kappa / depth * pull(adjoint)[0]
        return adjoint, tuple(reversed(forces))

    final, visited = jax.lax.scan(forward, tokens, particles)
    _, forces = jax.lax.scan(backward, jax.grad(risk)(final), (particles, visited), reverse=True)
    depths = jnp.arange(depth, dtype=tokens.dtype) / depth
    return tuple(States(depths, *parts, masks) for parts in zip(visited, forces, strict=True))


def at_depths(states: States, depths: Any, /) -> States:
    """The states of a network at any depths: those of the layer that holds each depth.

    Args:
        states: Tokens and forces of one block.
        depths: Depths in [0, 1].

    Raises:
        ValueError: If a depth lies outside [0, 1].

    >>> states = States(jnp.array([0.0, 0.5]), jnp.zeros((2, 1, 1, 1)), jnp.zeros((2, 1, 1, 1)))
    >>> at_depths(states, jnp.array([0.6, 1.0])).tokens.shape
    (2, 1, 1, 1)
    """
    check_depths("depths", depths)
    depths = jnp.asarray(depths, states.depths.dtype)
    layers = jnp.searchsorted(states.depths, depths, side="right") - 1
    layers = jnp.maximum(layers, 0)
    return states._replace(
        depths=depths, tokens=states.tokens[layers], forces=states.forces[layers]
    )


def check_depths(name: str, depths: Any, /) -> None:
    """Nothing, if these are depths in [0, 1].

    Args:
        name: What they are called in the message.
        depths: The numbers [t].

    Raises:
        ValueError: Otherwise.

    >>> check_depths("at", jnp.array([0.0, 1.0]))
    """
    numbers = np.asarray(depths, float)
    if numbers.ndim != 1 or not numbers.size or not np.all((numbers >= 0) & (numbers <= 1)):
        raise ValueError(
            f"{name} must be a vector of depths in [0, 1], at least one, got {numbers.tolist()}; "
            "layer l of L has the depth l/L"
        )


def batched(mean: Encoder, particles: PyTree, masks: Any, /) -> Callable[[Any], Any]:
    """The update of all samples by one layer's particles, as a function of their tokens.

    Args:
        mean: The mean over particles, or one particle's map.
        particles: The particles of one layer.
        masks: The mask of every sample, or None.

    >>> batched(lambda T, theta, mask: theta * T, 2.0, None)(jnp.ones((1, 1, 1))).ravel().tolist()
    [2.0]
    """
    axes = (0, None, None if masks is None else 0)
    return lambda tokens: jax.vmap(mean, in_axes=axes)(tokens, particles, masks)


def check_network(
    means: Sequence[Encoder], particles: tuple[Any, ...], kappa: float | Sequence[float], /
) -> tuple[Any, ...]:
    """The constants before each half-step, if half-steps and particles fit.

    Args:
        means: One mean per half-step.
        particles: One tree per half-step, leading axes [l, m].
        kappa: One number, or one per half-step.

    Raises:
        ValueError: If the numbers of means, trees and kappas differ, a tree is empty, or the trees
            differ in depth.

    >>> check_network([jnp.add], (jnp.ones((2, 3)),), 1.0)
    (1.0,)
    """
    if not len(means) == len(particles) > 0:
        raise ValueError(
            "there must be one tree of particles for each mean, and at least one of both, "
            f"got {len(particles)} trees and {len(means)} means"
        )
    depths, widths = zip(
        *((leading_axis(tree), leading_axis(tree, 1)) for tree in particles), strict=True
    )
    if len(set(depths)) > 1 or min(*depths, *widths) < 1:
        raise ValueError(
            "particles must have leading axes [l, m], both >= 1, with one depth l for all blocks, "
            f"got depths {list(depths)} and widths {list(widths)}"
        )
    kappas = np.ravel(kappa).tolist() * (len(means) if np.ndim(kappa) == 0 else 1)
    if len(kappas) != len(means):
        raise ValueError(f"kappa must be one number or {len(means)}, got {len(kappas)}")
    return tuple(non_negative("kappa", float(value)) for value in kappas)


def as_partial(function: Callable[..., Any], /) -> Partial:
    """The function as a tree that may enter ``jit`` as an argument.

    Args:
        function: Any function; one that carries its arrays as leaves is left alone.

    >>> as_partial(abs)(-1)
    1
    """
    return function if isinstance(function, Partial) else Partial(function)
