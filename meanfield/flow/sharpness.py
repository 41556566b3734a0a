r"""Sharpness along the flow: the signed extreme curvatures that it, and descent, are stable by.

    s Hess Q(theta) x = lambda x,      found from sqrt(s) Hess Q sqrt(s),      s the field's metric

by Lanczos, one Hessian product Hess Q v = d/dh grad Q(theta + h v) at a time. Where the time scales
depend on theta, s is taken at theta and not differentiated: this is the Hessian of Q in the flow's
metric, and not the Jacobian of its velocity. Branches that the field holds fixed do not count.

One trap: a value whose ``converged`` is False must not be trusted. The largest is then too low and
the smallest too high, by an amount that nobody knows.

References:
    Parlett, The Symmetric Eigenvalue Problem (1998), chapter 13 (Lanczos).
    Cohen et al. 2021, arXiv 2103.00065 (sharpness along training, and its bound 2 / step size).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from meanfield import checks, ode
from meanfield.flow.gradient import GradientField
from meanfield.tree import broadcast_prefix, leading_axis


class Sharpness(NamedTuple):
    """Signed extreme eigenvalues of s Hess Q, at one theta or along an axis of times.

    Attributes:
        largest: The largest eigenvalue; descent at step eta is stable where it is below 2 / eta.
        smallest: The smallest eigenvalue, negative where Q curves down.
        residuals: |A v - lambda v| / max |lambda| for the (largest, smallest) pair, |v| = 1.
        products: Hessian products spent, each two gradients.
        converged: Whether both residuals are within the tolerance.
    """

    largest: Float[Array, "*t"]
    smallest: Float[Array, "*t"]
    residuals: Float[Array, "*t 2"]
    products: Int[Array, "*t"]
    converged: Bool[Array, "*t"]


def sharpness(
    field: GradientField, /, *, tolerance: float = 1e-3, max_products: int = 64
) -> Callable[[Any], Sharpness]:
    """The observable theta -> signed largest and smallest eigenvalue of s Hess Q.

    Every call starts cold and costs ``products`` <= ``max_products`` Hessian products, each two
    gradients, and holds ``max_products`` vectors of the size of what trains. Where the parameters
    can be saved, :func:`sharpness_along` is cheaper.

    Args:
        field: The field of the flow; its energy and metric are meant.
        tolerance: Both residuals must fall below this times the largest |eigenvalue|. An eigenvalue
            lies that near to either value. At the end of a crowd, where the smallest often is, the
            extreme one may lie a few times further out; one that stands apart is far more precise.
        max_products: Most Hessian products.

    Returns:
        A function of theta for ``observe``, ``jit`` and ``vmap``. Built again from the same energy
        and time scales, it compiles nothing anew.

    Raises:
        ValueError: If an option is out of range, or the field is an argument of a function under
            ``jit``.

    >>> from meanfield import flow
    >>> found = sharpness(flow.gradient_field(lambda x: x[0] ** 2 - x[1] ** 2))(jnp.ones(2))
    >>> round(float(found.largest), 4), round(float(found.smallest), 4)
    (2.0, -2.0)
    """
    return Partial(_curvature(field, tolerance, max_products), field)


def sharpness_along(
    field: GradientField,
    thetas: PyTree[Float[Any, "t ..."]],
    /,
    *,
    tolerance: float = 1e-3,
    max_products: int = 64,
) -> Sharpness:
    """Sharpness along a path, the vectors of each time being the start at the next.

    The first time costs as much as :func:`sharpness`, a later one less the nearer it lies to the
    one before: ``products`` says how many, each two gradients. Held at once are ``max_products``
    vectors. A tenth of every start points everywhere, and no time takes fewer than six products, so
    that an eigenvalue which becomes extreme between two times is not missed.

    Args:
        field: The field of the flow.
        thetas: Parameters along a leading axis of times, e.g. the observables of a run saved with
            ``observe=lambda theta: theta``.
        tolerance: As in :func:`sharpness`.
        max_products: Most Hessian products at each time.

    Returns:
        The sharpness, with an axis of times.

    Raises:
        ValueError: If an option is out of range, the leaves differ in their numbers of times, or
            the field is an argument of a function under ``jit``.

    References:
        Parlett (1998), chapter 13.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**4 / 12)
    >>> sharpness_along(field, jnp.array([1.0, 2.0])).largest.tolist()
    [1.0, 4.0]
    """
    leading_axis(thetas)
    return _along(_curvature(field, tolerance, max_products), field, thetas)


@dataclass(frozen=True, kw_only=True)
class _Curvature:
    # Equal choices make equal objects, so that a second observable reuses the compiled program. The
    # mask is one of them: only a mask known to the compiler keeps what is held fixed out.
    structure: Any
    flags: tuple[bool, ...]
    tolerance: float
    max_products: int

    def __call__(self, field: GradientField, theta: PyTree) -> Sharpness:
        return self.summary(self.extremes(field, theta, None))

    def moving(self, tree: PyTree) -> tuple[PyTree, PyTree]:
        """What trains, and the rest."""
        return eqx.partition(
            tree, broadcast_prefix(jax.tree.unflatten(self.structure, self.flags), tree)
        )

    def extremes(
        self, field: GradientField, theta: PyTree, previous: ode.Extremes | None
    ) -> ode.Extremes:
        moving, fixed = self.moving(theta)
        gradient = jax.grad(lambda moving: field.energy(eqx.combine(moving, fixed)))
        return ode.extreme_eigenvalues(
            ode.weighted(
                lambda vector: jax.jvp(gradient, (moving,), (vector,))[1],
                self.moving(field.metric(theta))[0],
            ),
            moving,
            previous=previous,
            tolerance=self.tolerance,
            max_products=self.max_products,
        )

    def summary(self, found: ode.Extremes) -> Sharpness:
        radius = jnp.maximum(jnp.abs(found.largest), jnp.abs(found.smallest))
        # The zero Hessian has residual 0; a NaN stays one.
        residuals = found.residuals / jnp.where(radius == 0, 1, radius)
        return Sharpness(
            found.largest,
            found.smallest,
            residuals,
            found.products,
            jnp.all(residuals <= self.tolerance),
        )


def _curvature(field: GradientField, tolerance: float, max_products: int) -> _Curvature:
    flags, structure = jax.tree.flatten(field.trainable)
    if any(isinstance(flag, Tracer) for flag in flags):
        raise ValueError(
            "field must be known outside jit, got one whose mask of what trains is traced; "
            "build the observable before jit"
        )
    return _Curvature(
        structure=structure,
        flags=tuple(bool(flag) for flag in flags),
        tolerance=checks.positive("tolerance", tolerance),
        max_products=checks.count("max_products", max_products),
    )


@functools.partial(jax.jit, static_argnums=0)
def _along(curvature: _Curvature, field: GradientField, thetas: PyTree) -> Sharpness:
    def advance(vectors, theta):
        # Vectors alone are the start; zeros are a cold one, and so one loop is compiled, not two.
        unknown = jnp.zeros(())
        previous = ode.Extremes(unknown, unknown, vectors, unknown, unknown)
        found = curvature.extremes(field, theta, previous)
        # One time without a finite Hessian must not spoil the later ones.
        vectors = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), found.vectors)
        return vectors, curvature.summary(found)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), thetas)
    first, _ = curvature.moving(zeros)
    return jax.lax.scan(advance, (first, first), thetas)[1]
