"""Checks of parameters, directions and risks, shared by the whole room.

Trap: a risk that is not one number shows only when it is traced, so that check sits inside the
risk itself and raises at trace time, before anything is compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, keystr, tree_leaves_with_path
from jaxtyping import PyTree

from meanfield.notation import Risk, Scalar
from meanfield.tree import leading_axis


def check_parameters(name: str, parameters: PyTree, /) -> None:
    """Nothing, if a tree is a non-empty one of real floating-point arrays.

    Args:
        name: What the tree is called in the message.
        parameters: The tree.

    Raises:
        ValueError: Otherwise.

    >>> check_parameters("parameters", jnp.ones(3))
    """
    named = tree_leaves_with_path(parameters)
    if sum(jnp.size(leaf) for _, leaf in named) == 0:
        raise ValueError(f"{name} must hold at least one number, got an empty tree")
    for path, leaf in named:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"{name} must be real floating-point arrays, got {jnp.result_type(leaf)} at "
                f"{name}{keystr(path)}; close over what does not train"
            )


def check_direction(name: str, direction: PyTree, parameters: PyTree, /) -> None:
    """Nothing, if a direction has the structure and the shapes of the parameters.

    Args:
        name: What the direction is called in the message.
        direction: A tree of arrays.
        parameters: The tree that it is added to.

    Raises:
        ValueError: If a branch, a shape or a type does not fit.

    >>> check_direction("direction", jnp.ones(3), jnp.zeros(3))
    """
    given, wanted = jax.tree.structure(direction), jax.tree.structure(parameters)
    if given != wanted:
        raise ValueError(f"{name} must have the structure of the parameters, {wanted}, got {given}")
    check_parameters(name, direction)
    named = tree_leaves_with_path(parameters)
    for (path, leaf), other in zip(named, jax.tree.leaves(direction), strict=True):
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name} must have the shapes of the parameters, got {jnp.shape(other)} for "
                f"{jnp.shape(leaf)} at {name}{keystr(path)}"
            )


def full_marks(within: PyTree, parameters: PyTree, /) -> PyTree:
    """Marks of some parameters, 1 for those that move and 0 for the others, in full shapes.

    Args:
        within: A tree of 0 and 1 with the structure of the parameters; its leaves broadcast to
            theirs.
        parameters: The tree of which some are marked.

    Raises:
        ValueError: If it is no such tree, or nothing is marked.

    >>> full_marks({"w": jnp.array([[1], [0]])}, {"w": jnp.ones((2, 3))})["w"].tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    given, wanted = jax.tree.structure(within), jax.tree.structure(parameters)
    if given != wanted:
        raise ValueError(f"within must have the structure of the parameters, {wanted}, got {given}")
    leaves, found = jax.tree.leaves(parameters), []
    for mark, (path, leaf) in zip(
        jax.tree.leaves(within), tree_leaves_with_path(parameters), strict=True
    ):
        try:
            full = np.broadcast_to(np.asarray(mark, np.float64), jnp.shape(leaf))
        except ValueError:
            raise ValueError(
                f"within must broadcast to the shapes of the parameters, got {jnp.shape(mark)} "
                f"for {jnp.shape(leaf)} at within{keystr(path)}"
            ) from None
        if not np.isin(full, (0, 1)).all():
            raise ValueError(f"within must be 0 and 1 alone, got others at within{keystr(path)}")
        found.append(full)
    if not any(full.any() for full in found):
        raise ValueError("within must mark at least one parameter, got none")
    return jax.tree.unflatten(
        wanted, [np.asarray(m, jnp.result_type(x)) for m, x in zip(found, leaves, strict=True)]
    )


def trajectory_length(trajectory: PyTree, parameters: PyTree | None = None, /) -> int:
    """How many points a trajectory has: the leading axis of its leaves.

    Args:
        trajectory: Parameters behind an axis of times.
        parameters: One point, whose shapes the points must have.

    Raises:
        ValueError: If it is empty, its leaves disagree, or its points have other shapes.

    >>> trajectory_length(jnp.ones((5, 2)), jnp.ones(2))
    5
    """
    check_parameters("trajectory", trajectory)
    times = leading_axis(trajectory)
    if parameters is not None:
        point = jax.tree.map(lambda leaf: leaf[0], trajectory)
        check_direction("each point of the trajectory", point, parameters)
    return times


def one_number(risk: Callable[[Any], Any], /) -> Risk:
    """The risk, which at trace time raises if it is not one real floating-point number.

    Args:
        risk: A function of the parameters.

    Raises:
        ValueError: When called, if the value has axes or another type.

    >>> float(one_number(jnp.sum)(jnp.ones(3)))
    3.0
    """

    def checked(parameters: PyTree) -> Scalar:
        value = risk(parameters)
        dtype = getattr(value, "dtype", None)
        if dtype is None or value.shape != () or not jnp.issubdtype(dtype, jnp.floating):
            got = type(value).__name__ if dtype is None else f"shape {value.shape}, type {dtype}"
            raise ValueError(
                f"risk must give one real floating-point number, got {got}; average it"
            )
        return value

    return checked


def as_partial(function: Callable[..., Any], /) -> Partial:
    """The function as a tree that may enter ``jit`` as an argument.

    Args:
        function: Any function; one that carries its arrays as leaves is left alone.

    >>> as_partial(abs)(-1)
    1
    """
    return function if isinstance(function, Partial) else Partial(function)
