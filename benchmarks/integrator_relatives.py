r"""What relatives of RKC2 share as diffrax solvers of a flat state, and RKL2.

    RKL2:  R_s(z) = a_s + b_s P_s(1 + w1 z),    |R_s| <= 1 on -(s^2 + s - 2)/2 <= z <= 0

with Legendre polynomials P_s, w1 = 4/(s^2 + s - 2), b_s = (s^2 + s - 2)/(2 s (s + 1)).

One trap: a relative reports its costs to ``ode.Ledger``, which must be its controller; the F(y0) of
its start is evaluated in ``init`` and is in no report.

References:
    Meyer, Balsara, Aslam, A stabilized Runge-Kutta-Legendre method for explicit super-time-stepping
    of parabolic and mixed equations, J. Comp. Phys. 257 (2014), section 2.2.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax.numpy as jnp
from jax import lax

from meanfield import ode
from meanfield.ode.ledger import Reported
from meanfield.ode.radius import normalised, probe, probing_length

SAFETY = 1.2
REFRESH = 25
_SETTLED = 0.05
_MOST_PRODUCTS = 50


class Memory(NamedTuple):
    """The state of a relative: F at the start of the step, and what else its method keeps."""

    field: Any
    kept: Any


class Taken(NamedTuple):
    """One attempted step; `error` includes what rejects it, `longest` bounds the next one."""

    end: Any
    field: Any
    error: Any
    kept: Any
    evaluations: Any
    longest: Any = jnp.inf


class Relative(diffrax.AbstractAdaptiveSolver):
    """A solver of dy/dt = F(y), y a vector, whose subclass says how one step is attempted."""

    term_structure: ClassVar[Any] = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Any] = diffrax.ThirdOrderHermitePolynomialInterpolation
    accuracy: ClassVar[int] = 2

    def order(self, terms):
        """Order of convergence."""
        del terms
        return self.accuracy

    def error_order(self, terms):
        """Power of the step in the error estimate: three, or the order where it is higher."""
        del terms
        return max(self.accuracy, 3)

    def func(self, terms, t0, y0, args):
        """The field."""
        return terms.vf(t0, y0, args)

    def blank(self, y0) -> Any:
        """What the method keeps, before the first step."""
        raise NotImplementedError

    def attempt(self, rate: Callable, y0, first, h, kept) -> Taken:
        """A step of length h from y0, where F(y0) is `first`."""
        raise NotImplementedError

    def init(self, terms, t0, t1, y0, args):
        """State before the first step."""
        del t1
        return Memory(terms.vf(t0, y0, args), self.blank(y0))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):  # noqa: PLR0917 diffrax dictates the signature
        """One step, as `diffrax.AbstractSolver.step`."""
        del made_jump
        h, first = t1 - t0, solver_state.field
        taken = self.attempt(lambda y: terms.vf(t0, y, args), y0, first, h, solver_state.kept)
        error = jnp.where(jnp.isfinite(taken.error), taken.error, jnp.inf)
        spent = jnp.asarray(taken.evaluations, y0.dtype)
        longest = jnp.asarray(taken.longest, y0.dtype)
        reported = Reported(error, spent, jnp.zeros_like(spent), longest)
        dense = {"y0": y0, "y1": taken.end, "k0": h * first, "k1": h * taken.field}
        memory = Memory(taken.field, taken.kept)
        return taken.end, reported, dense, memory, diffrax.RESULTS.successful


class Known(NamedTuple):
    """What is known of the spectral radius, as in `ode.RKC2`."""

    direction: Any
    radius: Any
    slope: Any
    length: Any
    age: Any


class Stabilised(Relative):
    """A relative whose stages follow from the spectral radius, searched by the rules of RKC2."""

    def least(self) -> float:
        """Stability interval of the fewest stages."""
        raise NotImplementedError

    def polynomial(self, rate: Callable, y0, first, h, scaled_radius) -> tuple:
        """y1, F(y1), error, stages and interval of the most stages, for h times the radius."""
        raise NotImplementedError

    def blank(self, y0):
        """Nothing is known of the radius."""
        zero = jnp.zeros((), y0.dtype)
        return Known(probe(y0), zero, zero, zero, jnp.asarray(REFRESH, jnp.int32))

    def attempt(self, rate, y0, first, h, kept):
        """One step, after a search for the radius where one is due."""
        found = self._searched(rate, y0, first, h, kept)
        bound = SAFETY * found.value
        end, last, error, stages, most = self.polynomial(rate, y0, first, h, h * bound)
        change, length = normalised(last - first)[1], normalised(end - y0)[1]
        slope = jnp.where(length > 0, change / jnp.where(length > 0, length, 1), kept.slope)
        settled = jnp.where(found.change <= _SETTLED, 0, REFRESH)
        age = (jnp.where(found.products > 0, settled, kept.age) + stages).astype(jnp.int32)
        kept = Known(found.direction, found.value, slope, h, age)
        # A step that no number of stages makes stable is taken with the most, and rejected.
        error = jnp.where(h * bound <= most, error, jnp.inf)
        return Taken(end, last, error, kept, stages + found.products, 0.9 * most / bound)

    def _searched(self, rate, y0, first, h, kept):
        shorter, unknown = h < 0.999 * kept.length, kept.length == 0
        value = jnp.maximum(kept.radius, kept.slope)
        mild = ~(shorter | unknown) & (h * SAFETY * value <= self.least())
        due = ((kept.age >= REFRESH) | shorter) & ~mild
        length = probing_length(y0, first, h)
        return ode.spectral_radius(
            lambda v: (rate(y0 + length * v) - first) / length, kept.direction, value,
            tolerance=jnp.where(shorter | unknown, 0.01, _SETTLED),
            max_products=jnp.where(due, _MOST_PRODUCTS, 0), enough=self.least() / (2 * h),
        )  # fmt: skip


class RKL2(Stabilised):
    """Second-order Runge-Kutta-Legendre method."""

    max_stages: int = 1000

    def least(self):
        """Two stages: as every method of order two with two."""
        return 2.0

    def polynomial(self, rate, y0, first, h, scaled_radius):
        """The recursion of the paper, section 2.2; the error estimate is exact for y''' alone."""
        stages = jnp.ceil((jnp.sqrt(9 + 8 * scaled_radius) - 1) / 2)
        s = jnp.clip(stages, 2, self.max_stages)
        w1 = 4 / (s * s + s - 2)

        def stage(carry):
            j, y, before, field = carry
            mu = (2 * j - 1) / j * _weight(j) / _weight(j - 1)
            nu = -(j - 1) / j * _weight(j) / _weight(j - 2)
            slope = mu * w1 * h * (field - (1 - _weight(j - 1)) * first)
            following = mu * y + nu * before + (1 - mu - nu) * y0 + slope
            return j + 1, following, y, rate(following)

        start = y0 + w1 / 3 * h * first
        begin = (jnp.asarray(2.0, y0.dtype), start, y0, rate(start))
        end, last = (lax.while_loop(lambda c: c[0] <= s, stage, begin)[i] for i in (1, 3))
        # The error constant is 1/18 where RKC2 has 1/15: two thirds instead of four fifths.
        error = 2 / 3 * (y0 - end + h / 2 * (first + last))
        most = (self.max_stages**2 + self.max_stages - 2) / 2
        return end, last, error, s.astype(jnp.int32), most


def _weight(j):
    return jnp.where(j < 2, 1 / 3, (j * j + j - 2) / (2 * j * jnp.maximum(j + 1, 1)))
