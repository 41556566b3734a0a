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
from meanfield.ode.attempt import Point, attempt
from meanfield.ode.chebyshev import combine, stability_interval, stage_count
from meanfield.ode.ledger import Reported
from meanfield.ode.problem import check_rate, check_state, rate_of
from meanfield.ode.radius import Search, normalised, probe, unproven

_MARGIN = 2.0
_SETTLED = 0.05
_MOST_PRODUCTS = 50
_NO_REVERSE = (
    "RKC2 takes a varying number of stages and by default cannot be differentiated in reverse "
    'mode: use RKC2(differentiation="reverse") with diffrax.RecursiveCheckpointAdjoint(), or '
    "forward mode with diffrax.ForwardMode()"
)


class Work(NamedTuple):
    """Counts kept in the state of the solver, of accepted steps; products are evaluations too."""

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
    estimated inside by a warm-started power iteration on differences of the field. s stages cost s
    evaluations of the field: the field at the end of a step is the first of the next one.
    A step that needs more than `max_stages` costs nothing and is rejected; under a controller
    of fixed steps, which cannot reject, its state is NaN.

    Args:
        spectral_radius: upper bound on |eigenvalues| of the Jacobian: a number, a function
            (t, y, args) -> bound, or None to estimate it, each product for one evaluation.
        max_stages: most stages in one step, at least 2.
        safety: factor on the estimated radius, at least 1 (not on one given by the user).
        refresh: stages after which the radius is estimated again, unless two stages seem to do; it
            also is when an attempt is shorter than the last step taken, as after rejections.
        differentiation: "forward" or "reverse", the mode that derivatives of the solve support.
        ledger: report every attempt to an `ode.Ledger`, which must then be the controller.
        driving: function of the state to a tree like it, 1 where a leaf moves the field and 0 where
            it is but an integral along the way, which has no part in the spectral radius.

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
    driving: Callable | None

    def __init__(
        self,
        *,
        spectral_radius: float | Callable | None = None,
        max_stages: int = 1000,
        safety: float = 1.2,
        refresh: int = 25,
        differentiation: str = "forward",
        ledger: bool = False,
        driving: Callable | None = None,
    ):
        if not (spectral_radius is None or callable(spectral_radius)):
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
        self.driving = driving

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
        del t1
        check_state(y0)
        term = getattr(terms, "term", terms)
        if isinstance(term, diffrax.ODETerm):
            # The term itself would broadcast what has another shape.
            check_rate(lambda t, y: term.vector_field(t, y, args), t0, y0)
        zero = jnp.zeros((), jnp.int32)
        direction = normalised(self._seen(probe(y0)))[0] if self.spectral_radius is None else None
        return RKC2State(
            field=jax.tree.map(jnp.zeros_like, y0),
            known=jnp.asarray(False),
            direction=direction,
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
            radius, search = self._search(h, state)
        else:
            given = self._given(sign * t0, y0, args, state)
            radius, search = unproven(given, None), Search(0.0, 0, 0.0)
        forward = self.differentiation == "forward"
        found = attempt(
            rate,
            Point(t0, y0, state.field, known),
            h,
            lax.stop_gradient(radius),
            search=lax.stop_gradient(search),
            stages=lambda value: self._stages(lax.stop_gradient(h), value),
            seen=self._seen,
            most=self.max_stages + 1 + _MOST_PRODUCTS,
            loop="lax" if forward else "checkpointed",
        )
        result, taken = found.step, found.stages > 0
        if forward:
            result = eqxi.nondifferentiable_backward(result, msg=_NO_REVERSE)
        y1 = jax.tree.map(lambda y, d: jnp.where(taken, y + d, jnp.nan), y0, result.increment)
        error = jax.tree.map(lambda e: jnp.where(taken & ~jnp.isnan(e), e, jnp.inf), result.error)
        following = self._following(state, found, result, h)
        if self.ledger:
            # Nine tenths: the radius may be larger where the next step begins.
            bound = self._bound(found.radius.value)
            longest = 0.9 * stability_interval(self.max_stages) / bound
            spent = found.evaluations.astype(bound.dtype)
            products = found.radius.products.astype(bound.dtype)
            error = Reported(error, spent, products, lax.stop_gradient(longest))
        slopes = combine((h, result.first)), combine((h, result.last))
        dense = {"y0": y0, "y1": y1, "k0": slopes[0], "k1": slopes[1]}
        return y1, error, dense, following, diffrax.RESULTS.successful

    def _following(self, state, found, result, h):
        """The state after a step."""
        taken, products = found.stages > 0, found.radius.products
        # A rough estimate is continued in the next step, from where it stopped.
        settled = jnp.where(found.radius.change <= _SETTLED, 0, self.refresh)
        return RKC2State(
            field=result.last,
            known=taken,
            direction=found.radius.direction,
            radius=found.radius.value,
            slope=self._slope(result, state.slope),
            length=h,
            age=jnp.where(products > 0, settled, state.age) + found.stages,
            work=Work(
                state.work.evaluations + found.evaluations,
                state.work.products + products,
                state.work.stages + found.stages,
                jnp.maximum(state.work.largest_stages, found.stages),
            ),
        )

    def _bound(self, value):
        """An upper bound on the radius from its estimate."""
        return self.safety * value if self.spectral_radius is None else value

    def _stages(self, h, value):
        """Number of stages of a step, 0 if it would need more than there may be."""
        bound = self._bound(value)
        needed = stage_count(h.astype(bound.dtype) * bound)
        # False for a NaN as well: a radius that is no number admits no step.
        return jnp.where(needed <= self.max_stages, needed, 0).astype(jnp.int32)

    def _given(self, t, y, args, state):
        """The user's bound; NaN if it is negative, and then no step is taken."""
        given: Any = self.spectral_radius
        bound = jnp.asarray(given(t, y, args) if callable(given) else given, state.radius.dtype)
        return jnp.where(bound >= 0, bound, jnp.nan)

    def _search(self, h, state):
        """What is known of the radius, and how much may be spent to know it better."""
        # The only trace of a rejection, for the state is then restored: an attempt that is shorter
        # than the last step taken.
        shorter = h < 0.999 * state.length
        unknown = state.length == 0
        length, least = h.astype(state.radius.dtype), stability_interval(2)
        value = jnp.maximum(state.radius, state.slope)
        # Where two stages seem to do, no product is worth its price: if they do not, the error
        # estimate will say so at the price of two, until an attempt is shorter than the last step.
        mild = ~(shorter | unknown) & (length * self.safety * value <= least)
        due = ((state.age >= self.refresh) | shorter) & ~mild
        search = Search(
            tolerance=jnp.where(shorter | unknown, 0.01, _SETTLED),
            max_products=jnp.where(due, _MOST_PRODUCTS, 0),
            enough=least / (_MARGIN * length),
        )
        return unproven(value, state.direction), search

    def _slope(self, step, previous):
        """|F1 - F0| / |y1 - y0|, a lower estimate of the radius for which nothing is evaluated."""
        change = normalised(self._seen(jax.tree.map(jnp.subtract, step.last, step.first)))[1]
        length = normalised(self._seen(step.increment))[1]
        slope = change / jnp.where(length > 0, length, 1)
        slope = jnp.where(jnp.isfinite(slope), slope, previous).astype(previous.dtype)
        return lax.stop_gradient(slope)

    def _seen(self, tree):
        """A tree like the state, without what has no part in the spectral radius."""
        if self.driving is None:
            return tree
        return jax.tree.map(
            lambda kept, x: x * jnp.asarray(kept, x.dtype), self.driving(tree), tree
        )


def _real_dtype(tree):
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(tree))).real.dtype
