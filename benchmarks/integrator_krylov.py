r"""Krylov spaces of the Jacobian, and exponential Rosenbrock methods on them.

    y1 = y0 + h phi1(hJ) F0 [+ 2 h phi3(hJ) D],    D = F(U) - F0 - J (U - y0),  U the first part

of order two, with the bracket as its error estimate; or three, with the bracket. J is symmetric
after division by `scale` (-s H is, divided by sqrt(s)), so a space is Lanczos', kept orthogonal in
full; its products are differences of F, and cost one evaluation each. phi3 is taken from the space
built for F0, and as 1/6 outside of it.

One trap: a space is as large as this h asks for; where the largest one is not enough, the step is
rejected, and its products are lost.

References:
    Hochbruck, Ostermann, Schweitzer, Exponential Rosenbrock-type methods, SIAM J. Numer. Anal. 47
    (2009), section 2 and exprb32. Saad, SIAM J. Numer. Anal. 29 (1992), section 5 (the estimate).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from benchmarks.integrator_relatives import Relative, Taken
from meanfield.ode.radius import normalised, probing_length

_SHARE = 0.1
_LEAST = 3
_TERMS = 14


def phis(z, /):
    """phi1, phi2, phi3 of real arguments: phi_k(z) = (phi_{k-1}(z) - 1/(k-1)!) / z."""
    near = jnp.abs(z) < 0.7
    small, safe = jnp.where(near, z, 0.0), jnp.where(near, 1.0, z)
    series = jnp.ones_like(small)
    for k in reversed(range(_TERMS)):
        series = 1 + series * small / (k + 4)
    third = series / 6
    second = 0.5 + small * third
    one = jnp.expm1(safe) / safe
    two = (one - 1) / safe
    pairs = ((1 + small * second, one), (second, two), (third, (two - 0.5) / safe))
    return tuple(jnp.where(near, a, b) for a, b in pairs)


class Space(NamedTuple):
    """A Krylov space: basis as rows, J in it, their number, and the next vector with its factor.

    `lost` estimates what phi1(hJ) F0 has beyond the space, over the share of the tolerance it has.
    """

    basis: Any
    matrix: Any
    size: Any
    following: Any
    beta: Any
    check: Any
    lost: Any


def scaled_product(rate: Callable, y0, first, h, scale) -> Callable:
    """The map v -> J v after division by `scale`, by one evaluation of the field."""
    length = probing_length(y0, first, h)
    return lambda v: (rate(y0 + length * scale * v) - first) / length / scale


def krylov_space(product: Callable, start, h, weights, most: int) -> Space:
    """The space of `start`, as large as phi1(hJ) `start` needs for an error below `weights`."""
    direction, norm = normalised(start)

    def body(space):
        basis = space.basis.at[space.size].set(space.following)
        image = product(space.following)
        row = basis @ image
        image = image - row @ basis
        # Twice is enough (Parlett); once leaves ghosts of converged eigenvalues.
        following, beta = normalised(image - (basis @ image) @ basis)
        matrix = space.matrix.at[space.size].set(row).at[:, space.size].set(row)
        size = space.size + 1
        grown = Space(basis, matrix, size, following, beta, space.check, space.lost)
        due = (size >= space.check) | (size >= most)
        return lax.cond(due, lambda s: _checked(s, norm, h, weights), lambda s: s, grown)

    empty = Space(
        jnp.zeros((most, len(start))), jnp.zeros((most, most)), jnp.zeros((), jnp.int32), direction,
        jnp.zeros(()), jnp.asarray(_LEAST, jnp.int32), jnp.asarray(jnp.inf),
    )  # fmt: skip
    return lax.while_loop(lambda s: (s.lost > 1) & (s.size < most), body, empty)


def _checked(space, norm, h, weights):
    """The space with what it loses: Saad's estimate, the first term that is left out."""
    values, rotation = jnp.linalg.eigh(space.matrix)
    corner = rotation[space.size - 1] @ (phis(h * values)[1] * rotation[0])
    missed = h * h * norm * space.beta * corner * space.following / weights
    lost = jnp.sqrt(jnp.mean(missed**2)) / _SHARE
    return space._replace(lost=lost, check=space.size + 1 + space.size // 12)


class Krylov(Relative):
    """Exponential Rosenbrock method of order two, or three if corrected."""

    scale: Any
    rtol: Any
    atol: Any
    max_space: int = 100
    corrected: bool = False

    def order(self, terms):
        """Order of convergence."""
        del terms
        return 3 if self.corrected else 2

    def blank(self, y0):
        """Nothing is kept."""
        return jnp.zeros((), y0.dtype)

    def attempt(self, rate, y0, first, h, kept):
        """One step: a space for F(y0), the field at U, the correction."""
        tolerance = self.atol + self.rtol * jnp.abs(y0)
        product = scaled_product(rate, y0, first, h, self.scale)
        most = min(self.max_space, len(y0))
        space = krylov_space(product, first / self.scale, h, tolerance / self.scale, most)
        shift, correction = self._parts(rate, y0, first, h, space)
        end, spent = y0 + shift, space.size + 1
        last = rate(end)
        correction = correction(last)
        if self.corrected:
            end, spent = end + correction, spent + 1
            last = rate(end)
        taken = Taken(end, last, correction, kept, spent, 1.5 * h * most / space.size)
        return trusted(taken, space, y0, h, tolerance)

    def _parts(self, rate, y0, first, h, space):
        """U - y0, and the correction as a function of F(U)."""
        values, rotation = jnp.linalg.eigh(space.matrix)
        one, _, three = phis(h * values)
        shift = rotation @ (one * (rotation.T @ (space.basis @ (first / self.scale)))) * h
        beyond = shift[space.size - 1] * space.beta * space.following
        image = (space.matrix @ shift) @ space.basis + beyond

        def correction(field):
            rest = (field - first) / self.scale - image
            inside = rotation.T @ (space.basis @ rest)
            filtered = (rotation @ ((three - 1 / 6) * inside)) @ space.basis
            return 2 * h * self.scale * (filtered + rest / 6)

        return self.scale * (shift @ space.basis), correction


def trusted(taken: Taken, space: Space, y0, h, tolerance) -> Taken:
    """A step as it was taken, or rejected if its space was too small."""
    enough = space.lost <= 1
    # Of this size, the controller shortens the next attempt by a half at most.
    refused = jnp.clip(space.lost, 2.0, 5.0) * tolerance
    return taken._replace(
        end=jnp.where(enough, taken.end, y0),
        error=jnp.where(enough, taken.error, refused),
        longest=jnp.where(enough, taken.longest, 0.9 * h),
    )
