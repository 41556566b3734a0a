"""RKC2, a stabilised explicit Runge-Kutta solver for diffrax.

    dy/dt = F(t, y),   s stages are stable while  h * rho(dF/dy) <= 0.653 (s^2 - 1)

so s gradients cover a step that s^2/3 explicit Euler steps would need. For right-hand sides whose
Jacobian has a spectrum near the negative real axis: gradient flows, diffusion, reaction-diffusion.

Trap: diffrax restores the solver state when it rejects a step, so the statistics kept there leave
out rejected steps; `ode.StabilizedControl` keeps the full account.

References:
    Sommeijer, Shampine, Verwer, RKC: an explicit solver for parabolic PDEs,
    J. Comp. Appl. Math. 88 (1998) 315-326.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from meanfield import checks
from meanfield.ode.chebyshev import Point, chebyshev_step, combine, stage_count
from meanfield.ode.radius import Radius, probe, spectral_radius

_NO_REVERSE = (
    "RKC2 takes a varying number of stages and by default cannot be differentiated in reverse "
    'mode: use RKC2(differentiation="reverse") with diffrax.RecursiveCheckpointAdjoint(), or '
    "forward mode with diffrax.ForwardMode()"
)


class Statistics(NamedTuple):
    """Work of a solve: field evaluations, Jacobian products, stages, most stages in one step."""

    evaluations: Int[Array, "*batch"]
    products: Int[Array, "*batch"]
    stages: Int[Array, "*batch"]
    largest_stages: Int[Array, "*batch"]


class RKC2State(NamedTuple):
    """What a step hands to the next one."""

    field: PyTree
    direction: PyTree
    radius: Float[Array, ""]
    length: Float[Array, ""]
    age: Int[Array, ""]
    statistics: Statistics


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
        refresh: stages after which the radius is estimated again; it also is when a step is
            shorter than the last one, as after a rejection.
        differentiation: "forward" or "reverse", the mode that derivatives of the solve support.

    Raises:
        ValueError: for options out of range.

    References:
        Sommeijer, Shampine, Verwer (1998).

    >>> term, solver = diffrax.ODETerm(lambda t, y, args: -y), RKC2(spectral_radius=1.0)
    >>> diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.1, jnp.ones(1)).ys.round(2)
    Array([[0.37]], dtype=float32)
    """

    term_structure: ClassVar[Any] = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Any] = diffrax.ThirdOrderHermitePolynomialInterpolation

    spectral_radius: float | Callable | None
    max_stages: int
    safety: float
    refresh: int
    differentiation: str

    def __init__(
        self,
        *,
        spectral_radius: float | Callable | None = None,
        max_stages: int = 500,
        safety: float = 1.2,
        refresh: int = 25,
        differentiation: str = "forward",
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
        """State before the first step; one field evaluation."""
        del t1
        rate, _ = _rate(terms, args, t0)
        check_rate(rate, t0, y0)
        field = rate(t0, y0)
        real = _real_dtype(y0)
        zero = jnp.zeros((), jnp.int32)
        return RKC2State(
            field=field,
            direction=probe(y0) if self.spectral_radius is None else None,
            radius=jnp.zeros((), real),
            length=jnp.zeros_like(t0),
            age=jnp.asarray(self.refresh, jnp.int32),
            statistics=Statistics(zero + 1, zero, zero, zero),
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):  # noqa: PLR0917
        """One step, as `diffrax.AbstractSolver.step`."""
        state, h = solver_state, t1 - t0
        rate, sign = _rate(terms, args, t0)
        field = state.field
        # Static False unless the controller knows of jumps: no second trace of the field then.
        if made_jump is not False:
            field = lax.cond(made_jump, lambda: rate(t0, y0), lambda: field)
        estimate, bound, age = self._radius(rate, t0, y0, args, h, state, sign)
        needed = stage_count(h.astype(bound.dtype) * bound)
        # False for a NaN as well: a radius that is no number admits no step.
        admissible = needed <= self.max_stages
        stages = jnp.where(admissible, needed, 0).astype(jnp.int32)
        loop = "lax" if self.differentiation == "forward" else "checkpointed"
        start = Point(t0, y0, field)
        result = chebyshev_step(rate, start, h, stages, max_stages=self.max_stages, loop=loop)
        if self.differentiation == "forward":
            result = eqxi.nondifferentiable_backward(result, msg=_NO_REVERSE)
        y1 = jax.tree.map(lambda y, d: jnp.where(admissible, y + d, jnp.nan), y0, result.increment)
        error = jax.tree.map(lambda e: jnp.where(admissible, e, jnp.inf), result.error)
        statistics = Statistics(
            state.statistics.evaluations + stages + jnp.asarray(made_jump, jnp.int32),
            state.statistics.products + estimate.products,
            state.statistics.stages + stages,
            jnp.maximum(state.statistics.largest_stages, stages),
        )
        following = RKC2State(
            result.field, estimate.direction, estimate.value, h, age + stages, statistics
        )
        slopes = combine((h, field)), combine((h, result.field))
        dense = {"y0": y0, "y1": y1, "k0": slopes[0], "k1": slopes[1]}
        return y1, error, dense, following, diffrax.RESULTS.successful

    def _radius(self, rate, t, y, args, h, state, sign):
        """Estimate (with its products), the bound to use, and stages since the last estimate."""
        if self.spectral_radius is not None:
            given = self.spectral_radius
            bound = given(sign * t, y, args) if callable(given) else given
            bound = lax.stop_gradient(jnp.asarray(bound, state.radius.dtype))
            none = jnp.zeros((), jnp.int32)
            return Radius(bound, None, bound, none), bound, state.age
        frozen, point = lax.stop_gradient((t, y))
        # The only trace of a rejection: the next attempt is shorter than the last accepted step.
        shorter = h < 0.999 * state.length
        unknown = state.length == 0
        due = (state.age >= self.refresh) | shorter

        def product(vector):
            return jax.jvp(lambda x: rate(frozen, x), (point,), (vector,))[1]

        estimate = spectral_radius(
            product,
            lax.stop_gradient(state.direction),
            lax.stop_gradient(state.radius),
            tolerance=jnp.where(shorter | unknown, 0.01, 0.05),
            max_products=jnp.where(due, 50, 0),
        )
        estimate = lax.stop_gradient(estimate)
        return estimate, self.safety * estimate.value, jnp.where(due, 0, state.age)


def _real_dtype(tree):
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(tree))).real.dtype


def _rate(terms, args, t):
    """(t, y) -> dy/dt of diffrax terms, and the sign of time (diffrax solves backwards by -t)."""
    if any(isinstance(x, diffrax.ControlTerm) for x in _terms(terms)):
        raise ValueError("RKC2 solves ordinary differential equations, got a ControlTerm")
    control = terms.contr(jnp.zeros_like(t), jnp.ones_like(t))
    sign = jax.tree.leaves(control)[0]
    return (lambda time, y: terms.vf_prod(time, y, args, control)), sign


def _terms(terms):
    return jax.tree.leaves(terms, is_leaf=lambda x: isinstance(x, diffrax.ControlTerm))


def check_rate(rate: Callable, t, y: PyTree, /) -> None:
    """Checks, without evaluating it, that a field maps its state to one of the same structure.

    Args:
        rate: (t, y) -> dy/dt.
        t: time.
        y: state.

    Raises:
        ValueError: if the state is not floating point or the field returns another structure,
            shape or dtype.

    >>> check_rate(lambda t, y: -y, 0.0, jnp.ones(3))
    """
    for leaf in jax.tree.leaves(y):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(f"the state must be floating point, got {dtype}; convert it first")
    found = eqx.filter_eval_shape(rate, t, y)
    structures = jax.tree.structure(found), jax.tree.structure(y)
    if structures[0] != structures[1]:
        raise ValueError(
            f"the field must return the structure of its state, {structures[1]}, got "
            f"{structures[0]}"
        )
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(y), strict=True):
        if new.shape != jnp.shape(old):
            raise ValueError(
                f"the field must return the shapes of its state, {jnp.shape(old)}, got {new.shape}"
            )


def check_tolerances(rtol: float, atol: float, /) -> None:
    """Checks that both tolerances are positive numbers.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance.

    Raises:
        ValueError: if one is not.

    >>> check_tolerances(1e-3, 1e-6)
    """
    checks.positive("rtol", rtol)
    checks.positive("atol", atol)
