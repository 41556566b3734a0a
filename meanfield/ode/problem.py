"""The problem dy/dt = F(t, y) behind diffrax terms, and its eager checks.

Trap: diffrax integrates backwards in time by negating t, which is undone here; and it turns an
integer state into a floating one before a solver sees it, so only `check_state` before the solve,
as in `flow.gradient_flow`, can refuse that.
"""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from meanfield import checks


def rate_of(terms, args, t, /) -> tuple[Callable, jax.Array]:
    """The function (t, y) -> dy/dt of diffrax terms, and the sign of their time.

    Args:
        terms: one term, or a `diffrax.MultiTerm`, with no control other than time.
        args: what the terms take as args.
        t: a time, for its dtype.

    Returns:
        The function, and +1 or -1.

    Raises:
        ValueError: for a controlled or stochastic term.

    >>> rate, sign = rate_of(diffrax.ODETerm(lambda t, y, args: -y), None, jnp.zeros(()))
    >>> float(rate(0.0, jnp.ones(())))
    -1.0
    """

    def controlled(term):
        return isinstance(term, diffrax.ControlTerm)

    if any(map(controlled, jax.tree.leaves(terms, is_leaf=controlled))):
        raise ValueError("RKC2 solves ordinary differential equations, got a diffrax.ControlTerm")
    # Over a unit of time the control is the sign; products with it also serve BacksolveAdjoint.
    unit = terms.contr(jnp.zeros_like(t), jnp.ones_like(t))
    return (lambda time, y: terms.vf_prod(time, y, args, unit)), jax.tree.leaves(unit)[0]


def check_state(y: PyTree, /) -> None:
    """Checks that a state is floating point.

    Args:
        y: state.

    Raises:
        ValueError: if a leaf is not.

    >>> check_state(jnp.ones(3))
    """
    for leaf in jax.tree.leaves(y):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(f"the state must be floating point, got {dtype}; convert it first")


def check_rate(rate: Callable, t, y: PyTree, /) -> None:
    """Checks, without evaluating it, that a field maps its state to one of the same structure.

    Args:
        rate: (t, y) -> dy/dt.
        t: time.
        y: state.

    Raises:
        ValueError: if the state is not floating point, or the field returns another structure,
            shape or kind of number.

    >>> check_rate(lambda t, y: -y, 0.0, jnp.ones(3))
    """
    check_state(y)
    found = eqx.filter_eval_shape(rate, t, y)
    expected, got = jax.tree.structure(y), jax.tree.structure(found)
    if expected != got:
        raise ValueError(f"the field must return the structure of its state, {expected}, got {got}")
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(y), strict=True):
        if jnp.shape(new) != jnp.shape(old):
            raise ValueError(
                f"the field must return the shapes of its state, {jnp.shape(old)}, "
                f"got {jnp.shape(new)}"
            )


def check_tolerances(rtol: float, atol: float, /) -> None:
    """Checks that both tolerances are positive numbers.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance.

    Raises:
        ValueError: if one is not.

    >>> check_tolerances(1e-3, 1e-6)
    """
    checks.positive("rtol", rtol)
    checks.positive("atol", atol)
