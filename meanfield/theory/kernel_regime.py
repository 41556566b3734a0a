r"""Lazy or rich: the smallest eigenvalue of the tangent kernel, and how far the kernel travels.

    min eig K >= mu > 0   bounds the rate of the risk while the kernel stays put;
    |K(tau) - K(0)| / |K(0)|   and   <HKH, HK0H> / (|HKH| |HK0H|)   say whether it does,

with Frobenius norms and H the centring over samples. The kernel stands still in the lazy regime
(:mod:`meanfield.theory.lazy`) and travels in the mean-field one.

One trap: with fewer parameters than samples times outputs the kernel is singular, and its computed
smallest eigenvalue is round-off of either sign.

References:
    Jacot et al. 2018, arXiv 1806.07572; Chizat, Oyallon and Bach 2019, arXiv 1812.07956.
    Cortes et al. 2012, arXiv 1203.0550 (centred alignment).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from scipy.sparse import linalg

from meanfield.checks import count, finite, positive
from meanfield.notation import Scalar
from meanfield.theory.tangent import Kernel


class KernelDistance(NamedTuple):
    """How far one kernel is from another.

    Attributes:
        relative: |K - K0| / |K0| in the Frobenius norm.
        alignment: <HKH, HK0H> / (|HKH| |HK0H|), H centring over samples; 1 where the kernels agree
            up to a factor and up to constants. NaN where a kernel is constant over samples, as
            any kernel of one sample is.
    """

    relative: Float[Array, "*t"]
    alignment: Float[Array, "*t"]


def smallest_eigenvalue(
    kernel: Kernel | Callable[[Any], Any],
    /,
    *,
    shape: tuple[int, int] | None = None,
    tolerance: float = 1e-8,
) -> float:
    """The smallest eigenvalue of a tangent kernel, with its sign.

    A kernel given as an array is diagonalised. A product (:func:`tangent_product`) is handed to
    Lanczos' method with restarts, for sets too large for their kernel to be held.

    Args:
        kernel: K of one set with itself, or the product with it.
        shape: Samples and outputs (b, c) of a product.
        tolerance: Relative accuracy asked of Lanczos' method.

    Raises:
        ValueError: If K is not finite, is of two different sets, a product comes without its shape,
            or Lanczos' method does not converge.

    References:
        Lehoucq et al. 1998, ARPACK Users' Guide (restarted Lanczos).

    >>> smallest_eigenvalue(jnp.diag(jnp.array([2.0, 3.0])).reshape(2, 1, 2, 1))
    2.0
    """
    if not callable(kernel):
        return float(np.linalg.eigvalsh(np.asarray(square_matrix(kernel)))[0])
    if shape is None:
        raise ValueError("shape must be (samples, outputs) with a product, got None")
    positive("tolerance", tolerance)
    size = count("the number of samples and outputs", shape[0] * shape[1])
    sparse: Any = linalg  # scipy's own types know neither a float tolerance nor ``matvec``.
    operator = sparse.LinearOperator(
        (size, size),
        matvec=lambda vector: np.ravel(kernel(jnp.asarray(vector).reshape(shape))),
        dtype=jax.eval_shape(kernel, jnp.zeros(shape)).dtype,
    )
    start = np.random.default_rng(0).normal(size=size)
    finite("the product with the kernel", first := operator.matvec(start))
    if size == 1:
        # ARPACK finds fewer eigenvalues than there are.
        return float(first[0] / start[0])
    try:
        return float(sparse.eigsh(operator, k=1, which="SA", v0=start, tol=tolerance)[0][0])
    except linalg.ArpackNoConvergence as error:
        raise ValueError(
            f"Lanczos' method must converge to {tolerance}, got no eigenvalue in {10 * size} "
            "restarts; raise tolerance, or give the kernel as an array"
        ) from error


def kernel_distance(
    kernel: Float[Array, "*t b c b c"], reference: Float[Array, "b c b c"], /
) -> KernelDistance:
    """The distance that a kernel has travelled from a reference, or several have.

    Args:
        kernel: One kernel, or one per time of a flow: what ``gradient_flow`` saves with ``observe=
            lambda theta: tangent_kernel(apply, theta, inputs)``.
        reference: The kernel to compare with, at the start of the flow.

    Raises:
        ValueError: If a kernel is not finite, they are of different sets, or the reference is 0.

    References:
        Cortes et al. 2012, arXiv 1203.0550.

    >>> start = jnp.array([[1.0, 0.5], [0.5, 2.0]]).reshape(2, 1, 2, 1)
    >>> [round(float(x), 6) for x in kernel_distance(3 * start, start)]
    [2.0, 1.0]
    """
    finite("kernel", (kernel, reference))
    kernel, reference = jnp.asarray(kernel), jnp.asarray(reference)
    if reference.ndim != 4 or kernel.shape[-4:] != reference.shape:
        raise ValueError(
            "kernels must end in the reference's shape [b c b c], got shapes "
            f"{kernel.shape} and {reference.shape}; compare kernels of the same samples"
        )
    if not isinstance(reference, Tracer) and not jnp.any(reference):
        raise ValueError("the reference kernel must not be 0: there is no distance relative to it")
    flat = kernel.reshape(-1, *reference.shape)
    found = jax.vmap(_distance, in_axes=(0, None))(flat, reference)
    return KernelDistance(*(each.reshape(kernel.shape[:-4]) for each in found))


def _distance(kernel: Kernel, reference: Kernel) -> tuple[Scalar, Scalar]:
    def centred(kernel):
        for axis in (0, 2):
            kernel = kernel - jnp.broadcast_to(kernel.mean(axis, keepdims=True), kernel.shape)
        return jnp.ravel(kernel)

    one, two, norm = centred(kernel), centred(reference), jnp.linalg.norm
    alignment = jnp.vdot(one, two) / (norm(one) * norm(two))
    return norm(jnp.ravel(kernel - reference)) / norm(jnp.ravel(reference)), alignment


def square_matrix(kernel: Kernel, /) -> Float[Array, "p p"]:
    """A kernel of one set with itself as a symmetric matrix, samples first.

    Args:
        kernel: K[i, a, j, b].

    Raises:
        ValueError: If it is not finite, or is of two different sets.

    >>> square_matrix(jnp.ones((3, 2, 3, 2))).shape
    (6, 6)
    """
    if kernel.shape[:2] != kernel.shape[2:]:
        raise ValueError(
            f"the kernel must be of one set with itself, [b c b c], got shape {kernel.shape}"
        )
    finite("the kernel", kernel)
    size = kernel.shape[0] * kernel.shape[1]
    matrix = jnp.reshape(kernel, (size, size))
    return (matrix + matrix.T) / 2
