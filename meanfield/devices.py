r"""Trees of arrays spread over a mesh of devices.

Particles lie along the mesh axis ``"heads"``, samples along ``"data"``, and seeds or
hyper-parameters along ``"replicas"`` (:mod:`meanfield.replicas`):

    mesh = devices.mesh(data=2, heads=4)
    theta = devices.spread(theta, mesh, model.partition("heads"))

One trap: an array whose axis the devices do not divide evenly is refused here; left to itself, the
compiler would pad it or gather it whole on every device.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from meanfield.checks import count


def mesh(**axes: int) -> Mesh:
    """Devices in a box with named axes, whose layouts the compiler completes.

    Args:
        axes: Devices along each axis: ``data`` for samples, ``heads`` for particles, ``replicas``
            for seeds and hyper-parameters.

    Raises:
        ValueError: If a number is not a positive integer, or there are fewer devices.

    >>> mesh(data=1, heads=1).axis_names
    ('data', 'heads')
    """
    sizes = tuple(count(name, size) for name, size in axes.items())
    if math.prod(sizes) > jax.device_count():
        raise ValueError(
            f"the mesh {axes} needs {math.prod(sizes)} devices, got {jax.device_count()}; on a CPU "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={math.prod(sizes)} makes as many"
        )
    return jax.make_mesh(sizes, tuple(axes), axis_types=(AxisType.Auto,) * len(sizes))


def spread(tree: PyTree, mesh: Mesh, partition: PyTree, /) -> PyTree:
    """The tree with every branch laid out over the devices.

    Args:
        tree: Arrays.
        mesh: The devices.
        partition: A prefix of the tree, of ``jax.sharding.PartitionSpec``.

    Raises:
        ValueError: If an axis of an array is no multiple of the devices it is spread over, or the
            mesh lacks an axis that the partition names.

    >>> spread(jnp.ones((2, 3)), mesh(heads=1), PartitionSpec("heads")).shape
    (2, 3)
    """
    check_spread(tree, mesh, partition)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), partition, is_leaf=is_spec)
    return jax.device_put(tree, shardings)


def check_spread(tree: PyTree, mesh: Mesh | AbstractMesh, partition: PyTree, /) -> None:
    """Nothing, if the devices divide every axis that is spread.

    Args:
        tree: Arrays.
        mesh: The devices.
        partition: A prefix of the tree, of ``jax.sharding.PartitionSpec``.

    Raises:
        ValueError: Otherwise.

    >>> check_spread(jnp.ones(3), mesh(data=1), PartitionSpec("data"))
    """

    def check(spec: PartitionSpec, branch: PyTree) -> None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(branch):
            for axis, name in enumerate(spec):
                if name is not None:
                    _check_axis(mesh, name, jax.tree_util.keystr(path), jnp.shape(leaf), axis)

    jax.tree.map(check, partition, tree, is_leaf=is_spec)


def mapped(
    function: Callable[..., PyTree], mesh: Mesh, /, *, in_specs: PyTree, out_specs: PyTree
) -> Callable[..., PyTree]:
    """The function on each device's own part, along all axes of the mesh that are still whole.

    Args:
        function: A function of arrays.
        mesh: The devices. Inside :func:`meanfield.replicas.each_replica` their groups are parted.
        in_specs: A prefix of the arguments, of ``jax.sharding.PartitionSpec``.
        out_specs: The same of the results.

    >>> specs = {"in_specs": PartitionSpec("data"), "out_specs": PartitionSpec("data")}
    >>> mapped(lambda x: 2 * x, mesh(data=1), **specs)(jnp.ones(1))
    Array([2.], dtype=float32)
    """
    specs: dict[str, Any] = {"in_specs": in_specs, "out_specs": out_specs}
    if not parted():
        return jax.shard_map(function, mesh=mesh, **specs)
    return jax.shard_map(function, axis_names=set(mesh.axis_names) - parted(), **specs)


def parted() -> frozenset[str]:
    """The axes of the mesh along which the code around has parted its arrays.

    >>> parted()
    frozenset()
    """
    return frozenset(jax.sharding.get_abstract_mesh().manual_axes)


def alone() -> bool:
    """Whether one device does all the work of the code around, with all cores of a processor.

    >>> alone()
    True
    """
    return jax.sharding.get_abstract_mesh().size <= 1


def varying(tree: PyTree, axis: str | tuple[str, ...], /) -> PyTree:
    """The same values, differing between the devices of an axis as far as derivatives go.

    Inside ``jax.shard_map``: what the devices make of a value that all share is added up in the
    backward pass, once for each call of this function.

    Args:
        tree: Arrays.
        axis: Name of the mesh axis, or several.

    >>> specs = {"in_specs": PartitionSpec(), "out_specs": PartitionSpec("data")}
    >>> jax.shard_map(lambda x: varying(x, "data"), mesh=mesh(data=1), **specs)(jnp.ones(1))
    Array([1.], dtype=float32)
    """
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis, to="varying"), tree)


def aligned(*arrays: Array) -> tuple[Array, ...]:
    """The same arrays, each differing between all devices between which any of them does.

    Args:
        arrays: Arrays, inside ``jax.shard_map`` or not.

    >>> aligned(jnp.ones(1), jnp.zeros(1))[1].tolist()
    [0.0]
    """
    each = [_differing(jax.typeof(array)) for array in arrays]
    every = frozenset().union(*each)
    missing = [tuple(sorted(every - axes)) for axes in each]
    pairs = zip(arrays, missing, strict=True)
    return tuple(varying(array, axes) if axes else array for array, axes in pairs)


def zeros(shapes: PyTree, /) -> PyTree:
    """Zeros that a loop may start from.

    Args:
        shapes: Shapes and dtypes, as ``jax.eval_shape`` gives them.

    >>> zeros(jax.ShapeDtypeStruct((2,), jnp.float32)).tolist()
    [0.0, 0.0]
    """

    def filled(shape: Any) -> Array:
        array = jnp.zeros(shape.shape, shape.dtype)
        # A loop's state must differ between devices from the start if it does at the end.
        axes = tuple(sorted(_differing(shape)))
        return varying(array, axes) if axes else array

    return jax.tree.map(filled, shapes)


def dot(left: PyTree, right: PyTree, like: Array, /) -> Array:
    """Euclidean inner product of two trees, over all devices that hold parts of them.

    Args:
        left: Arrays.
        right: Arrays of the same shapes.
        like: A number that differs only between devices between which the product shall, too.

    >>> float(dot((jnp.ones(2), jnp.ones(3)), (jnp.ones(2), jnp.ones(3)), jnp.ones(())))
    5.0
    """

    def whole(one: Array, other: Array) -> Array:
        product = jnp.sum(one * other)
        axes = _differing(jax.typeof(product)) - _differing(jax.typeof(like))
        return jax.lax.psum(product, tuple(sorted(axes))) if axes else product

    return sum(jax.tree.leaves(jax.tree.map(whole, left, right)), jnp.zeros_like(like))


def is_spec(value: Any, /) -> bool:
    """Whether a branch of a partition ends here.

    Args:
        value: A branch.

    >>> is_spec(PartitionSpec("heads")), is_spec((PartitionSpec(),))
    (True, False)
    """
    return isinstance(value, PartitionSpec)


def _check_axis(
    mesh: Mesh | AbstractMesh, name: str, path: str, shape: tuple[int, ...], axis: int
) -> None:
    if name not in mesh.shape:
        raise ValueError(f"the mesh must have an axis {name!r}, got {tuple(mesh.axis_names)}")
    devices = mesh.shape[name]
    if axis >= len(shape) or shape[axis] % devices:
        raise ValueError(
            f"axis {axis} of an array must be a multiple of the {devices} devices of mesh axis "
            f"{name!r}, got shape {shape}{' at ' + path if path else ''}; take another number of "
            f"{name}, or fewer devices for them"
        )


def _differing(value: Any) -> frozenset[str]:
    # jax 0.10 moved the axes over which a value differs into an object of their own.
    kind = getattr(value, "manual_axis_type", None)
    return frozenset(getattr(value, "vma", ()) if kind is None else kind.varying)
