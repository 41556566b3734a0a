r"""RKC2 with a space of stiff directions of the Jacobian integrated exponentially.

    y(t) = y0 + z(t) + V c(t),    c(t) = t phi1(-t L) V^T F0,    dz/dt = (1 - V V^T) F(y)

where J V = -V L, so that the stages follow from what V leaves. V holds the leading eigenvectors, by
warm-started block iteration, one product for each vector at each refresh; or the Krylov space of
F0, which is new in each step and leaves dz/dt = 0 at its start.

One trap: with block iteration c is of second order only as far as V is invariant, and eigenvectors
held by one product each are not; the error estimate sees what c misses, and the steps shorten.

References:
    Sommeijer, Shampine, Verwer 1998 (the stages); Saad, Numerical Methods for Large Eigenvalue
    Problems (2011), section 5.2 (block iteration).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from benchmarks.integrator_krylov import krylov_space, phis, scaled_product, trusted
from benchmarks.integrator_relatives import REFRESH, SAFETY, Relative, Taken
from meanfield.ode.attempt import Point, attempt
from meanfield.ode.chebyshev import stability_interval, stage_count
from meanfield.ode.radius import Search, probe, unproven

_MAX_STAGES = 1000


class Fast(NamedTuple):
    """Directions V as rows, decay rates L, and the scale in which they are orthonormal."""

    basis: Any
    rates: Any
    scale: Any


def split_step(rate, start: Point, h, fast: Fast, radius, *, search: Search) -> tuple:
    """One step along V c(t) and the rest: the attempt at the rest, y1, F(y1), error."""
    (basis, rates, scale), y0 = fast, start.state
    slope = basis @ (start.field / scale)

    def outside(x):
        return x - scale * ((basis @ (x / scale)) @ basis)

    def along(t):
        return scale * ((t * phis(-t * rates)[0] * slope) @ basis)

    def stages(value):
        needed = stage_count(h * SAFETY * value)
        return jnp.where(needed <= _MAX_STAGES, needed, 0).astype(jnp.int32)

    # Only its end is projected: the recursion is linear, and the field sees what lies outside of V.
    found = attempt(
        lambda t, y: rate(y0 + outside(y - y0) + along(t)),
        start,
        h,
        radius,
        search=search, stages=stages, most=_MAX_STAGES + 51,
    )  # fmt: skip
    step, decayed = found.step, h * phis(-h * rates)[0] * slope
    missed = basis @ (step.last / scale) - (slope - rates * decayed)
    left = scale * ((2 * h * phis(-h * rates)[2] * missed) @ basis)
    error = jnp.where(found.stages > 0, outside(step.error) + left, jnp.inf)
    return found, y0 + outside(step.increment) + along(h), step.last, error


class Held(NamedTuple):
    """Eigenvectors as rows, decay rates L, radius of the rest and its direction, length, age."""

    basis: Any
    rates: Any
    direction: Any
    radius: Any
    length: Any
    age: Any


class Deflated(Relative):
    """RKC2 on the complement of `rank` eigenvectors, which are refreshed every few stages.

    With `free`, the vectors are iterated to convergence in every step, and their products are not
    counted: a bound on what deflation can gain, not a method.
    """

    scale: Any
    rank: int = 4
    free: bool = False

    def blank(self, y0):
        """Directions without structure, orthonormal."""
        flat = probe(jnp.zeros(self.rank * len(y0), y0.dtype)).reshape(len(y0), self.rank)
        zero, age = jnp.zeros((), y0.dtype), jnp.asarray(REFRESH, jnp.int32)
        basis = jnp.linalg.qr(flat)[0].T
        return Held(basis, jnp.zeros(self.rank, y0.dtype), probe(y0), zero, zero, age)

    def attempt(self, rate, y0, first, h, kept):
        """One step: eigenvectors if due, the stages of the rest along the known fast part."""
        due = (kept.age >= REFRESH) | self.free
        rounds = jnp.where(due, 6 if self.free else 1, 0)
        product = scaled_product(rate, y0, first, h, self.scale)
        basis, rates = lax.fori_loop(
            0, rounds, lambda _, pair: _iterated(product, pair[0]), (kept.basis, kept.rates)
        )
        again = due | (h < 0.999 * kept.length)
        search = Search(0.05, jnp.where(again, 50, 0), stability_interval(2) / (2 * h))
        radius = unproven(kept.radius, kept.direction)
        fast, start = Fast(basis, rates, self.scale), Point(jnp.zeros_like(h), y0, first)
        found, end, last, error = split_step(rate, start, h, fast, radius, search=search)
        value = found.radius.value
        age = (jnp.where(due, 0, kept.age) + found.stages).astype(jnp.int32)
        kept = Held(basis, rates, found.radius.direction, value, h, age)
        spent = found.evaluations + (0 if self.free else self.rank * rounds)
        longest = 0.9 * stability_interval(_MAX_STAGES) / (SAFETY * value)
        return Taken(end, last, error, kept, spent, longest)


def _iterated(product, basis):
    """One block iteration: images of the vectors, Rayleigh quotients, the span of the images."""
    images = lax.map(product, basis)
    quotients = images @ basis.T
    values, rotation = jnp.linalg.eigh(-(quotients + quotients.T) / 2)
    return jnp.linalg.qr((rotation.T @ images).T)[0].T, jnp.maximum(values, 0.0)


class KrylovDeflated(Relative):
    """RKC2, with few stages, on the complement of the Krylov space of F(y0)."""

    scale: Any
    rtol: Any
    atol: Any
    max_space: int = 100

    def blank(self, y0):
        """Nothing is kept."""
        return jnp.zeros((), y0.dtype)

    def attempt(self, rate, y0, first, h, kept):
        """One step: a space for F(y0), then the stages."""
        tolerance = self.atol + self.rtol * jnp.abs(y0)
        product = scaled_product(rate, y0, first, h, self.scale)
        most = min(self.max_space, len(y0))
        space = krylov_space(product, first / self.scale, h, tolerance / self.scale, most)
        values, rotation = jnp.linalg.eigh(space.matrix)
        # Next to an eigenvalue that the space has not found, there may be another of its size.
        rough = space.beta * jnp.abs(rotation[space.size - 1]) > 0.05 * jnp.abs(values[0])
        radius = unproven(jnp.max(jnp.where(rough, jnp.abs(values), 0.0)), None)
        fast = Fast(rotation.T @ space.basis, -values, self.scale)
        start, rest = Point(jnp.zeros_like(h), y0, first), Search(0.0, 0, 0.0)
        found, end, last, error = split_step(rate, start, h, fast, radius, search=rest)
        spent = space.size + found.evaluations
        taken = Taken(end, last, error, kept, spent, 1.5 * h * most / space.size)
        return trusted(taken, space, y0, h, tolerance)
