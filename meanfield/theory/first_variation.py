r"""First variation of the energy, its gradient, the stationarity residual and the dissipation.

    dQ/drho(theta, t) = E <f(T(t), theta), kappa p(t)> + (lambda/2) |theta|^2

and along the Wasserstein gradient flow, where particles move by -grad_theta dQ/drho,

    dQ/dtau = - sum over blocks of  int_0^1 int |grad_theta dQ/drho|^2 drho_t dt.

At the particles of a mean-field network the gradient is L M grad Q, exactly and at finite width
and depth, if T and p are those of its half-steps (:func:`network_states`); with the tokens and
adjoint of the depth ODE (:func:`limit_states`) it is that of the limit.

One trap: dQ/drho is the derivative along *added* mass. Moving mass, which keeps rho_t a
probability, changes Q by dQ/drho(theta, t) minus its mean over rho_t.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al., eq. (9), (10), (21).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from meanfield.checks import non_negative
from meanfield.notation import Scalar
from meanfield.theory.states import Encoder, States, batched
from meanfield.tree import leading_axis, squared_norm


class FirstVariation(NamedTuple):
    """The first variation at probe particles.

    Attributes:
        value: dQ/drho, one number per depth and probe.
        gradient: Its gradient in the particle: a tree like the probes.
    """

    value: Float[Array, "l m"]
    gradient: PyTree[Float[Array, "l m ..."]]


def first_variation(
    particle: Encoder,
    states: States,
    probes: PyTree[Float[Array, "l m ..."]],
    /,
    *,
    weight_decay: float | Scalar = 0.0,
) -> FirstVariation:
    """dQ/drho of one block, and its gradient, at any particles and depths.

    Args:
        particle: The map of one particle (``block.particle``).
        states: Tokens and forces of that block at the depths of the probes.
        probes: Any particles, leading axes [l, m]: depth as in ``states``, and how many.
        weight_decay: The constant lambda.

    Returns:
        Values and gradients. At the particles of the network itself the gradients are L M grad Q.

    Raises:
        ValueError: If probes and states differ in depth, there are no probes, or the decay is
            negative.

    References:
        Gao et al. 2024, arXiv 2410.23610; Ding et al., eq. (10).

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> first_variation(lambda T, theta, mask: theta * T, states, jnp.ones((1, 2))).value.tolist()
    [[1.0, 1.0]]
    """
    check_probes(probes, states)
    if not isinstance(weight_decay, Tracer):
        non_negative("weight_decay", float(weight_decay))
    decay = jnp.asarray(weight_decay, states.tokens.dtype)
    return _first_variation(particle, states, probes, decay)


def stationarity(
    particle: Encoder,
    states: States,
    particles: PyTree[Float[Array, "l m ..."]],
    /,
    *,
    weight_decay: float | Scalar = 0.0,
) -> Float[Array, "l"]:
    """The residual int |grad dQ/drho|^2 drho_t of one block, at every depth.

    Args:
        particle: The map of one particle.
        states: Tokens and forces of that block.
        particles: The particles of the network, whose measure is rho.
        weight_decay: The constant lambda.

    Returns:
        Zero at every depth where the measure is stationary.

    Raises:
        ValueError: As :func:`first_variation`.

    References:
        Ding et al., eq. (21).

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), 3 * jnp.ones((1, 1, 1, 1)))
    >>> stationarity(lambda T, theta, mask: theta * T, states, jnp.ones((1, 2))).tolist()
    [9.0]
    """
    found = first_variation(particle, states, particles, weight_decay=weight_decay)
    return jnp.mean(jax.vmap(jax.vmap(squared_norm))(found.gradient), axis=1)


def dissipation(residuals: tuple[Float[Array, "_"], ...], depths: Float[Array, "l"], /) -> Scalar:
    """The rate -dQ/dtau at which the Wasserstein gradient flow lowers the energy.

    Args:
        residuals: The stationarity residual of every block.
        depths: Left ends of the layers, the first at 0 (``states.depths``).

    Returns:
        The sum over blocks of the residual, integrated over depths in [0, 1].

    Raises:
        ValueError: If there is not one residual per depth, or the depths do not start at 0.

    References:
        Ding et al., eq. (21).

    >>> float(dissipation((jnp.array([1.0, 3.0]),), jnp.array([0.0, 0.5])))
    2.0
    """
    shapes = [residual.shape for residual in residuals]
    if set(shapes) != {depths.shape}:
        raise ValueError(f"there must be one residual per depth, {depths.shape}, got {shapes}")
    if not isinstance(depths, Tracer) and depths[0] != 0:
        raise ValueError(
            f"depths must be the left ends of layers, the first at 0, got {depths[0]:g}; take "
            "states at 0 too"
        )
    lengths = jnp.diff(depths, append=jnp.ones(1, depths.dtype))
    return functools.reduce(jnp.add, [jnp.dot(lengths, residual) for residual in residuals])


def check_probes(probes: PyTree[Float[Array, "l m ..."]], states: States, /) -> None:
    """Nothing, if there are particles at each depth of the states.

    Args:
        probes: Particles, leading axes [l, m].
        states: Tokens and forces.

    Raises:
        ValueError: Otherwise.

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> check_probes(jnp.ones((1, 2)), states)
    """
    if leading_axis(probes) != len(states.depths):
        raise ValueError(
            f"probes must have the states' {len(states.depths)} depths along their first axis, "
            f"got {leading_axis(probes)}; take states at the probes' depths with at_depths"
        )
    if not leading_axis(probes, 1):
        raise ValueError("probes must be at least one particle per depth, got an empty cloud")


def response(particle: Encoder, tokens: Any, forces: Any, masks: Any, /) -> Any:
    """The risk's part of the first variation at one depth: theta -> E <f(T, theta), kappa p>.

    Args:
        particle: The map of one particle.
        tokens: Tokens of all samples [b n d] that the half-step reads.
        forces: Forces [b n d] on its update.
        masks: The mask of every sample, or None.

    >>> one = jnp.ones((1, 1, 1))
    >>> float(response(lambda T, theta, mask: theta * T, one, one, None)(2.0))
    2.0
    """
    return lambda theta: jnp.vdot(batched(particle, theta, masks)(tokens), forces)


@functools.partial(jax.jit, static_argnums=0)
def _first_variation(particle, states, probes, weight_decay):
    def at_one_depth(tokens_forces_probes):
        tokens, forces, probes = tokens_forces_probes
        risk_part = response(particle, tokens, forces, states.masks)

        def value(theta):
            return risk_part(theta) + weight_decay / 2 * squared_norm(theta)

        return FirstVariation(*jax.vmap(jax.value_and_grad(value))(probes))

    # Depths one after the other: memory is that of one layer, and so is the program.
    return jax.lax.map(at_one_depth, (states.tokens, states.forces, probes))
