"""RKC2, a stabilised explicit Runge-Kutta solver for diffrax.

    dy/dt = F(t, y),   s stages are stable while  h * rho(dF/dy) <= 0.653 (s^2 - 1)

so s gradients cover a step that s^2/3 explicit Euler steps would need. For right-hand sides whose
Jacobian has a spectrum near the negative real axis: gradient flows, diffusion, reaction-diffusion.

Trap: diffrax restores the solver state when it rejects a step. Counts kept there leave out the
rejected steps; `with_ledger` keeps the full account.

References:
    Sommeijer, Shampine, Verwer, RKC: an explicit solver for parabolic PDEs,
    J. Comp. Appl. Math. 88 (1998) 315-326.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from meanfield import checks
from meanfield.ode.chebyshev import (
    Point,
    chebyshev_step,
    combine,
    stability_interval,
    stage_count,
)
from meanfield.ode.ledger import Attempt
from meanfield.ode.problem import check_state, rate_of
from meanfield.ode.radius import Radius, normalised, probe, spectral_radius

_MARGIN = 2.0
_SETTLED = 0.05
_NO_REVERSE = (
    "RKC2 takes a varying number of stages and by default cannot be differentiated in reverse "
    'mode: use RKC2(differentiation="reverse") with diffrax.RecursiveCheckpointAdjoint(), or '
    "forward mode with diffrax.ForwardMode()"
)


class Work(NamedTuple):
    """Counts kept in the state of the solver, of accepted steps."""

    evaluations: Int[Array, "*batch"]
    products: Int[Array, "*batch"]
    stages: Int[Array, "*batch"]
    largest_stages: Int[Array, "*batch"]


class RKC2State(NamedTuple):
    """What a step hands to the next one."""

    field: PyTree
    known: Bool[Array, ""]
    direction: PyTree
    radius: Float[Array, ""]
    slope: Float[Array, ""]
    length: Float[Array, ""]
    age: Int[Array, ""]
    work: Work


class RKC2(diffrax.AbstractAdaptiveSolver):
    """Second-order Runge-Kutta-Chebyshev method, a solver for `diffrax.diffeqsolve`.

    The number of stages of each step follows from the spectral radius of the Jacobian, which is
    estimated inside by a warm-started power iteration on Jacobian products. s stages cost s
    evaluations of the field: the field at the end of a step is the first of the next one.
    A step that needs more than `max_stages` costs nothing and is rejected; under a controller
    of fixed steps, which cannot reject, its state is NaN.

    Args:
        spectral_radius: upper bound on |eigenvalues| of the Jacobian: a number, a function
            (t, y, args) -> bound, or None to estimate it.
        max_stages: most stages in one step, at least 2.
        safety: factor on the estimated radius, at least 1 (not on one given by the user).
        refresh: stages after which the radius is estimated again, unless two stages seem to do;
            it also is when a step is shorter than the last one, as after a rejection.
        differentiation: "forward" or "reverse", the mode that derivatives of the solve support.
        ledger: report every attempt to an `ode.Ledger`, which must then be the controller.

    Raises:
        ValueError: for options out of range.

    References:
        Sommeijer, Shampine, Verwer (1998).

    >>> term, solver = diffrax.ODETerm(lambda t, y, args: -y), RKC2(spectral_radius=1.0)
    >>> solution = diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.1, 1.0)
    >>> round(float(solution.ys[0]), 3)
    0.369
    """

    term_structure: ClassVar[Any] = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Any] = diffrax.ThirdOrderHermitePolynomialInterpolation

    spectral_radius: float | Callable | None
    max_stages: int
    safety: float
    refresh: int
    differentiation: str
    ledger: bool

    def __init__(
        self,
        *,
        spectral_radius: float | Callable | None = None,
        max_stages: int = 500,
        safety: float = 1.2,
        refresh: int = 25,
        differentiation: str = "forward",
        ledger: bool = False,
    ):
        if isinstance(spectral_radius, int | float):
            spectral_radius = checks.non_negative("spectral_radius", float(spectral_radius))
        if not (math.isfinite(safety) and safety >= 1):
            raise ValueError(f"safety must be >= 1, got {safety}; 1.2 is usual")
        self.spectral_radius = spectral_radius
        self.max_stages = checks.count("max_stages", max_stages, least=2)
        self.safety = float(safety)
        self.refresh = checks.count("refresh", refresh)
        self.differentiation = checks.choice(
            "differentiation", differentiation, ("forward", "reverse")
        )
        self.ledger = bool(ledger)

    def order(self, terms):
        """Order of convergence."""
        del terms
        return 2

    def error_order(self, terms):
        """Power of the step in the error estimate, which is of local order 3."""
        del terms
        return 3

    def func(self, terms, t0, y0, args):
        """The field, for controllers that choose the first step."""
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> RKC2State:
        """State before the first step, which evaluates the field at its start."""
        del terms, t1, args
        check_state(y0)
        zero = jnp.zeros((), jnp.int32)
        return RKC2State(
            field=jax.tree.map(jnp.zeros_like, y0),
            known=jnp.asarray(False),
            direction=probe(y0) if self.spectral_radius is None else None,
            radius=jnp.zeros((), _real_dtype(y0)),
            slope=jnp.zeros((), _real_dtype(y0)),
            length=jnp.zeros_like(t0),
            age=jnp.asarray(self.refresh, jnp.int32),
            work=Work(zero, zero, zero, zero),
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):  # noqa: PLR0917 diffrax dictates the signature
        """One step, as `diffrax.AbstractSolver.step`."""
        state, h = solver_state, jnp.asarray(t1 - t0)
        rate, sign = rate_of(terms, args, t0)
        known = state.known & ~jnp.asarray(made_jump)
        if self.spectral_radius is None:
            estimate, age = self._estimate(rate, t0, y0, h, state)
            bound = self.safety * estimate.value
        else:
            estimate, age = self._given(sign * t0, y0, args, state), state.age
            bound = estimate.value
        needed = stage_count(h.astype(bound.dtype) * bound)
        # False for a NaN as well: a radius that is no number admits no step.
        admissible = needed <= self.max_stages
        stages = jnp.where(admissible, needed, 0).astype(jnp.int32)
        loop = "lax" if self.differentiation == "forward" else "checkpointed"
        start = Point(t0, y0, state.field, known)
        result = chebyshev_step(rate, start, h, stages, max_stages=self.max_stages, loop=loop)
        if self.differentiation == "forward":
            result = eqxi.nondifferentiable_backward(result, msg=_NO_REVERSE)
        y1 = jax.tree.map(lambda y, d: jnp.where(admissible, y + d, jnp.nan), y0, result.increment)
        error = jax.tree.map(lambda e: jnp.where(admissible, e, jnp.inf), result.error)
        spent = jnp.where(stages > 0, stages + ~known, 0)
        work = Work(
            state.work.evaluations + spent,
            state.work.products + estimate.products,
            state.work.stages + stages,
            jnp.maximum(state.work.largest_stages, stages),
        )
        following = RKC2State(
            field=result.last,
            known=stages > 0,
            direction=estimate.direction,
            radius=estimate.value,
            slope=_slope(result, state.slope),
            length=h,
            age=age + stages,
            work=work,
        )
        if self.ledger:
            # Nine tenths: the radius may be larger where the next step begins.
            longest = 0.9 * stability_interval(self.max_stages) / bound
            evaluations, products = (x.astype(bound.dtype) for x in (spent, estimate.products))
            error = Attempt(error, evaluations, products, lax.stop_gradient(longest))
        slopes = combine((h, result.first)), combine((h, result.last))
        dense = {"y0": y0, "y1": y1, "k0": slopes[0], "k1": slopes[1]}
        return y1, error, dense, following, diffrax.RESULTS.successful

    def _given(self, t, y, args, state):
        """The user's bound, as an estimate that cost nothing."""
        given = self.spectral_radius
        bound = jnp.asarray(given(t, y, args) if callable(given) else given, state.radius.dtype)
        return lax.stop_gradient(Radius(bound, None, bound, jnp.zeros((), jnp.int32)))

    def _estimate(self, rate, t, y, h, state):
        """The estimated radius, and the number of stages since it was last renewed."""
        frozen, point = lax.stop_gradient((t, y))
        # The only trace of a rejection: the next attempt is shorter than the last accepted step.
        shorter = h < 0.999 * state.length
        unknown = state.length == 0
        length, least = h.astype(state.radius.dtype), stability_interval(2)
        value = lax.stop_gradient(jnp.maximum(state.radius, state.slope))
        # Where two stages seem to do, no product is worth its price: if they do not, the error
        # estimate will say so, and the attempt after a rejection asks for an accurate radius.
        mild = ~(shorter | unknown) & (length * self.safety * value <= least)
        due = ((state.age >= self.refresh) | shorter) & ~mild

        def product(vector):
            return jax.jvp(lambda x: rate(frozen, x), (point,), (vector,))[1]

        estimate = spectral_radius(
            product,
            lax.stop_gradient(state.direction),
            value,
            tolerance=jnp.where(shorter | unknown, 0.01, _SETTLED),
            max_products=jnp.where(due, 50, 0),
            enough=least / (_MARGIN * length),
        )
        # A rough estimate is continued in the next step, from where it stopped.
        settled = jnp.where(estimate.change <= _SETTLED, 0, self.refresh)
        return lax.stop_gradient(estimate), jnp.where(due, settled, state.age)


def _slope(step, previous):
    """|F1 - F0| / |y1 - y0|, a lower estimate of the radius for which nothing is evaluated."""
    change = normalised(jax.tree.map(jnp.subtract, step.last, step.first))[1]
    length = normalised(step.increment)[1]
    slope = change / jnp.where(length > 0, length, 1)
    return lax.stop_gradient(jnp.where(jnp.isfinite(slope), slope, previous).astype(previous.dtype))


def _real_dtype(tree):
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(tree))).real.dtype
