r"""Gradient descent, the discrete twin of the flow, under any optax transformation.

    theta <- theta - update(s grad Q(theta)),      s = time_scales(theta)

With ``optax.sgd(eta)`` a step is one Euler step of the flow over the time eta.

One trap: the gradient handed to the optimiser already holds the decay and the time scale s; a
transformation that normalises gradients, such as Adam, divides s out again and couples the decay.

References:
    Gao et al. 2024, arXiv 2410.23610 (gradient descent as a discretised flow).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from meanfield import checks
from meanfield.flow.gradient import GradientField, check_energy, check_field
from meanfield.flow.observables import Observe, observables, observed
from meanfield.flow.record import COMPLETED, DIVERGED, Record, rows


def descent(
    field: GradientField,
    theta: PyTree[Float[Array, "..."]],
    steps: Any,
    /,
    *,
    optimizer: optax.GradientTransformation,
    observe: Observe = None,
) -> Record:
    """Descends the energy step by step and saves observables along the way.

    Args:
        field: The field of the flow, from :func:`gradient_field`; its negative is the gradient.
        theta: Parameters before the first step.
        steps: Increasing numbers of steps after which observables are saved, the first >= 0.
        optimizer: Any optax transformation. Pass the same object again to reuse the compiled
            program.
        observe: What to save: a function of theta, or a dictionary of them.

    Returns:
        The record, its times being numbers of steps. Descent that leaves the finite numbers stops,
        and the record keeps the last finite parameters.

    Raises:
        ValueError: If the numbers of steps do not increase, or theta or the energy at the start is
            not finite.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2 / 2)
    >>> flow.descent(field, jnp.array(1.0), [0, 2], optimizer=optax.sgd(0.5)).theta.item()
    0.25
    """
    saves = np.asarray(steps)
    if saves.ndim != 1 or not len(saves) or not np.issubdtype(saves.dtype, np.integer):
        raise ValueError(f"steps must be a list of whole numbers, got {steps}")
    if saves[0] < 0 or np.any(np.diff(saves) <= 0):
        raise ValueError(f"steps must be >= 0 and increasing, got {saves.tolist()}")
    theta = jax.tree.map(jnp.asarray, theta)
    checks.finite("theta", theta)
    check_field(field, theta)
    check_energy(field, theta)
    (count, theta, alive), saved, reached = _descend(
        optimizer, field, theta, jnp.asarray(saves), observables(observe)
    )
    kept, taken, done = int(np.sum(reached)), int(count), bool(alive)
    return Record(
        times=saves[:kept].astype(float),
        observables=rows(saved, kept),
        theta=theta,
        end_time=float(taken),
        result=COMPLETED if done else DIVERGED,
        message=f"took {taken} steps"
        if done
        else f"stopped after {taken} of {saves[-1]} steps: the next one is not finite; "
        "lower the step size",
        statistics={"steps": taken, "gradients": taken + (not done)},
    )


@functools.partial(jax.jit, static_argnums=0)
def _descend(optimizer, field, theta, saves, functions):
    def step(carry):
        count, theta, state, _ = carry
        gradient = jax.tree.map(jnp.negative, field(0.0, theta))
        updates, state = optimizer.update(gradient, state, theta)
        proposed = optax.apply_updates(theta, updates)
        alive = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(proposed)]).all()
        kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), proposed, theta)
        return count + alive, kept, state, alive

    def until(carry, save):
        carry = jax.lax.while_loop(lambda c: (c[0] < save) & c[3], step, carry)
        return carry, (observed(functions, carry[1]), carry[0] == save)

    start = (jnp.zeros((), saves.dtype), theta, optimizer.init(theta), jnp.array(True))
    (count, theta, _, alive), (saved, reached) = jax.lax.scan(until, start, saves)
    return (count, theta, alive), saved, reached
