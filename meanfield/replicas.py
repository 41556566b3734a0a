r"""Seeds and hyper-parameters as one program, on one device or on groups of them.

    ends = replicas.batched(solve)(thetas)
    ends = replicas.each_replica(solve, devices.mesh(replicas=2, data=2, heads=2))(thetas)

One trap: a ``jax.vmap`` of loops goes on until the last replica is done, and does the work of all
until then.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import PyTree

from meanfield import devices


def batched(function: Callable[..., PyTree], /) -> Callable[..., PyTree]:
    """The function of one replica as a function of many, in one program on one device.

    One after another on a CPU, where a replica fills caches and cores by itself and a loop ends
    with its own replica; side by side elsewhere, as ``jax.vmap`` has it.

    Args:
        function: From the arguments of one replica to its results.

    >>> batched(lambda x: x**2)(jax.numpy.arange(3.0)).tolist()
    [0.0, 1.0, 4.0]
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function)
    return lambda *arguments: jax.lax.map(lambda one: function(*one), arguments)


def each_replica(
    function: Callable[..., PyTree], mesh: Mesh | AbstractMesh, /
) -> Callable[..., PyTree]:
    """The function of one replica as a function of many, each group of devices doing its own.

    Seeds and hyper-parameters lie along the leading axis of every argument, and that along the mesh
    axis ``"replicas"``. Groups send each other nothing: a loop ends in each when its own replicas
    are done. Within a group, what is spread along the other axes stays so. Keep the object: each
    one compiles anew. Its program calls nothing on the host: of diffrax, ask with ``throw=False``.

    Args:
        function: From the arguments of one replica to its results, as :func:`batched` takes it.
        mesh: The devices, with an axis ``"replicas"``.

    Raises:
        ValueError: If the mesh has no such axis; when called, if its groups of devices do not
            divide the replicas.

    >>> squares = each_replica(lambda x: x**2, devices.mesh(replicas=1))
    >>> squares(jax.numpy.arange(3.0)).tolist()
    [0.0, 1.0, 4.0]
    """
    if "replicas" not in mesh.shape:
        raise ValueError(f"the mesh must have an axis 'replicas', got {tuple(mesh.axis_names)}")
    along = PartitionSpec("replicas")

    # What differs between replicas is not followed: diffrax would take it for an error of types.
    options: dict[str, Any] = {"axis_names": {"replicas"}, "check_vma": False}
    group = jax.shard_map(batched(function), mesh=mesh, in_specs=along, out_specs=along, **options)

    def every(*arguments: PyTree) -> PyTree:
        devices.check_spread(arguments, mesh, along)
        return group(*arguments)

    # A mesh parted along one of its axes is for the compiler only.
    return jax.jit(every)


def of_replicas(partition: PyTree, /) -> PyTree:
    """How many replicas lie on a mesh, stacked along the leading axis.

    Args:
        partition: How one of them lies, a tree of ``jax.sharding.PartitionSpec``.

    >>> tuple(of_replicas(PartitionSpec(None, "heads")))
    ('replicas', None, 'heads')
    """
    return jax.tree.map(
        lambda spec: PartitionSpec("replicas", *spec), partition, is_leaf=devices.is_spec
    )
