"""Trees of arrays as vectors of one inner-product space.

A *prefix* of a tree gives one scalar to each of its branches: ``Theta(embedding=1.0, blocks=(96.0,
96.0), readout=1.0)`` is a prefix of every ``Theta``. Time scales and decay scales are prefixes, so
a scaling law costs a handful of numbers and not a copy of the network.

One trap: ``tree.map`` over (tree, prefix) fails; broadcast the prefix first.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from meanfield.notation import Scalar


def broadcast_prefix(prefix: PyTree, tree: PyTree) -> PyTree:
    """The tree of the structure of ``tree`` whose leaves are the prefix's values.

    Args:
        prefix: A tree that ends no later than ``tree`` on every branch.
        tree: The tree whose structure is wanted.

    Raises:
        ValueError: If ``prefix`` is not a prefix of ``tree``.

    >>> broadcast_prefix((1.0, 2.0), ((10, 20), 30))
    ((1.0, 1.0), 2.0)
    """
    leaves: list[Any] = []

    def spread(value: Any, branch: PyTree) -> None:
        leaves.extend([value] * jax.tree.structure(branch).num_leaves)

    try:
        jax.tree.map(spread, prefix, tree)
    except ValueError as error:
        raise ValueError(
            f"the prefix must end no later than the tree on every branch, got prefix "
            f"{jax.tree.structure(prefix)} for {jax.tree.structure(tree)}"
        ) from error
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def scale(prefix: PyTree, tree: PyTree) -> PyTree:
    """Each branch of ``tree`` times its scalar of ``prefix``.

    Args:
        prefix: One scalar per branch.
        tree: Arrays.

    >>> scale((2.0, 0.0), (jnp.ones(1), jnp.ones(1)))
    (Array([2.], dtype=float32), Array([0.], dtype=float32))
    """
    return jax.tree.map(
        lambda factor, leaf: jnp.asarray(factor, leaf.dtype) * leaf,
        broadcast_prefix(prefix, tree),
        tree,
    )


def dot(left: PyTree, right: PyTree) -> Scalar:
    """Euclidean inner product of two trees of one structure.

    Args:
        left: Arrays.
        right: Arrays of the same shapes.

    >>> float(dot((jnp.ones(2), jnp.ones(3)), (jnp.ones(2), jnp.ones(3))))
    5.0
    """
    # Not vdot: it lays arrays out flat, for which a mesh of devices would gather them whole.
    products = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), left, right))
    # A start of zeros(()) would turn float32 into float64.
    return functools.reduce(jnp.add, products) if products else jnp.zeros(())


def squared_norm(tree: PyTree) -> Scalar:
    """Squared Euclidean norm of a tree.

    Args:
        tree: Arrays.

    >>> float(squared_norm((jnp.ones(2), 2.0 * jnp.ones(1))))
    6.0
    """
    return dot(tree, tree)


def leading_axis(tree: PyTree, axis: int = 0) -> int:
    """The length that all leaves share along one axis.

    Args:
        tree: Arrays.
        axis: Which axis, counted from the front.

    Raises:
        ValueError: If the leaves disagree, lack the axis, or the tree is empty.

    >>> leading_axis((jnp.ones((4, 2)), jnp.ones(4)))
    4
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    lengths = {shape[axis] if len(shape) > axis else -1 for shape in shapes}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError(f"all leaves must share one length along axis {axis}, got shapes {shapes}")
    return lengths.pop()
