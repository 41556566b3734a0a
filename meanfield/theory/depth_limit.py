r"""Limit of infinite depth: the depth ODE of the tokens and its adjoint, solved by diffrax.

    dT/dt =  F(t, T),              T(0) = H,        F(t, T) = sum over blocks of kappa int f drho_t
    dp/dt = -(d_T F(t, T))* p,     p(1) = d risk / d T(1)

rho_t is given by particles at depths t_1 < t_2 < ... and, elsewhere, by the interpolation of
:mod:`meanfield.theory.depth_measure`.

A network of L layers is a splitting scheme of step 1/L for the constant measure on the depths l/L,
so it tends to this limit at order 1 in 1/L.

One trap: the way back needs the tokens of the way forth, so :func:`limit_states` stores them all.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al., eq. (7), (11).
    Kidger 2022, *On Neural Differential Equations*, arXiv 2202.02435 (diffrax).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from meanfield.checks import choice, count, finite, positive
from meanfield.theory.depth_measure import INTERPOLATIONS, layer_at
from meanfield.theory.states import (
    Encoder,
    Masks,
    States,
    TokenRisk,
    as_partial,
    batched,
    check_depths,
    check_network,
)
from meanfield.tree import leading_axis


class _Problem(NamedTuple):
    particles: tuple[Any, ...]
    depths: Float[Array, "l"]
    kappas: tuple[Any, ...]
    tokens: Float[Array, "b n d"]
    masks: Masks
    at: Float[Array, "t"]
    tolerances: tuple[Any, Any]


def limit_tokens(
    means: Sequence[Encoder],
    particles: tuple[Any, ...],
    tokens: Float[Array, "b n d"],
    at: Any,
    /,
    *,
    masks: Masks = None,
    kappa: float | Sequence[float] = 1.0,
    depths: Any = None,
    interpolation: str = "constant",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_steps: int = 1024,
) -> Float[Array, "t b n d"]:
    """The tokens T(t) of the depth ODE.

    Args:
        means: The mean over particles of every half-step (``block.mean``).
        particles: One tree per half-step, leading axes [l, m].
        tokens: The tokens H of all samples at depth 0.
        at: Increasing depths in [0, 1] at which the tokens are wanted.
        masks: The mask of every sample, True where a key may be attended to.
        kappa: The constant before each half-step: one number, or one per block.
        depths: Where the particles are given, increasing in [0, 1]; l/L if None.
        interpolation: Elsewhere, ``"constant"`` or ``"linear"``.
        rtol: Relative tolerance of a step; no smaller than the dtype resolves.
        atol: Absolute tolerance of a step.
        max_steps: Steps after which the solve gives up.

    Raises:
        ValueError: If an argument breaks these rules, or the solve fails.

    References:
        Ding et al., eq. (7).

    >>> grow = lambda T, theta, mask: jnp.mean(theta) * T
    >>> one = limit_tokens([grow], (jnp.ones((2, 3)),), jnp.ones((1, 1, 1)), [1.0], rtol=1e-5)
    >>> round(float(one[0, 0, 0, 0]), 3)
    2.718
    """
    given = {"masks": masks, "kappa": kappa, "depths": depths, "tolerances": (rtol, atol)}
    problem = _problem(means, particles, tokens, at, **given)
    choice("interpolation", interpolation, INTERPOLATIONS)
    limit = count("max_steps", max_steps)
    found, result = _tokens(tuple(means), problem, interpolation, limit)
    return _checked(found, result)


def limit_states(
    means: Sequence[Encoder],
    risk: TokenRisk,
    particles: tuple[Any, ...],
    tokens: Float[Array, "b n d"],
    at: Any,
    /,
    *,
    masks: Masks = None,
    kappa: float | Sequence[float] = 1.0,
    depths: Any = None,
    interpolation: str = "constant",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_steps: int = 1024,
) -> tuple[States, ...]:
    """Tokens T(t) and forces kappa p(t) of the depth ODE: the first variation of the limit.

    Args:
        means: The mean over particles of every half-step (``block.mean``).
        risk: The risk, from the final tokens of all samples to a number.
        particles: One tree per half-step, leading axes [l, m].
        tokens: The tokens H of all samples at depth 0.
        at: Increasing depths in [0, 1] at which states are wanted.
        masks: The mask of every sample, True where a key may be attended to.
        kappa: The constant before each half-step: one number, or one per block.
        depths: Where the particles are given, increasing in [0, 1]; l/L if None.
        interpolation: Elsewhere, ``"constant"`` or ``"linear"``.
        rtol: Relative tolerance of a step; no smaller than the dtype resolves.
        atol: Absolute tolerance of a step.
        max_steps: Steps after which a solve gives up; about 7 copies of the tokens are stored for
            each.

    Returns:
        One :class:`States` per block, all with the same tokens.

    Raises:
        ValueError: If an argument breaks these rules, or a solve fails.

    References:
        Ding et al., eq. (7), (11).

    >>> grow = lambda T, theta, mask: jnp.mean(theta) * T
    >>> one, particles = jnp.ones((1, 1, 1)), (jnp.ones((2, 3)),)
    >>> float(limit_states([grow], jnp.sum, particles, one, [1.0], rtol=1e-5)[0].forces[0, 0, 0, 0])
    1.0
    """
    given = {"masks": masks, "kappa": kappa, "depths": depths, "tolerances": (rtol, atol)}
    problem = _problem(means, particles, tokens, at, **given)
    choice("interpolation", interpolation, INTERPOLATIONS)
    limit = count("max_steps", max_steps)
    found, result = _states(tuple(means), as_partial(risk), problem, interpolation, limit)
    tokens, adjoints = _checked(found, result)
    return tuple(States(problem.at, tokens, kappa * adjoints, masks) for kappa in problem.kappas)


def _problem(means, particles, tokens, at, *, masks, kappa, depths, tolerances) -> _Problem:
    kappas = check_network(means, particles, kappa)
    finite("tokens", tokens)
    layers = leading_axis(particles[0])
    given = np.arange(layers) / layers if depths is None else np.asarray(depths, float)
    for name, numbers in (("depths", given), ("at", np.asarray(at, float))):
        check_depths(name, numbers)
        if np.any(np.diff(numbers) <= 0):
            raise ValueError(f"{name} must increase, got {numbers.tolist()}; sort them")
    if len(given) != layers:
        raise ValueError(
            f"depths must be one for each of the particles' {layers} layers, got {len(given)}"
        )
    for name, value in zip(("rtol", "atol"), tolerances, strict=True):
        positive(name, value)
    dtype = tokens.dtype
    at, given = jnp.asarray(at, dtype), jnp.asarray(given, dtype)
    return _Problem(particles, given, kappas, tokens, masks, at, tolerances)


def _checked(found: Any, result: Any) -> Any:
    # Under jit there is no result to read yet; diffrax leaves infinities where it gave up.
    failed = not isinstance(result, Tracer) and not bool(result)
    if failed:
        raise ValueError(
            "the depth ODE must be solvable to depth 1, got a solve that gave up: raise max_steps "
            "or rtol, or check that the particles are finite"
        )
    return found


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _tokens(means, problem, interpolation, max_steps):
    drift = _drift(means, problem, interpolation)
    saveat = diffrax.SaveAt(ts=problem.at)
    solve = functools.partial(_solve, problem, interpolation, max_steps)
    solution = solve(drift, problem.tokens, span=(0.0, 1.0), saveat=saveat)
    return solution.ys, _ok(solution)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _states(means, risk, problem, interpolation, max_steps):
    drift = _drift(means, problem, interpolation)
    saved = diffrax.SubSaveAt(ts=problem.at)
    saveat = diffrax.SaveAt(subs=[saved, diffrax.SubSaveAt(t1=True)], dense=True)
    solve = functools.partial(_solve, problem, interpolation, max_steps)
    way = solve(drift, problem.tokens, span=(0.0, 1.0), saveat=saveat)
    tokens, final = cast(Any, way.ys)

    def adjoint_drift(t, adjoint):
        _, pull = jax.vjp(functools.partial(drift, t), way.evaluate(t))
        return -pull(adjoint)[0]

    start, saveat = jax.grad(risk)(final[0]), diffrax.SaveAt(ts=problem.at[::-1])
    back = solve(adjoint_drift, start, span=(1.0, 0.0), saveat=saveat)
    adjoints = cast(Any, back.ys)[::-1]
    return (tokens, adjoints), _ok(way) & _ok(back)


def _solve(problem, interpolation, max_steps, rate, y, *, span, saveat):
    rtol, atol = problem.tolerances
    # Saved depths are ends of steps, so that what is saved has the accuracy of the solver.
    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=rtol, atol=atol),
        step_ts=problem.at,
        # A step across a jump of the measure would evaluate stages on either side of it.
        jump_ts=problem.depths if interpolation == "constant" else None,
    )
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: rate(t, y)),
        diffrax.Tsit5(),
        span[0],
        span[1],
        None,
        y,
        saveat=saveat,
        stepsize_controller=controller,
        max_steps=max_steps,
        throw=False,
    )


def _ok(solution: diffrax.Solution) -> Any:
    return solution.result == diffrax.RESULTS.successful


def _drift(means: tuple[Encoder, ...], problem: _Problem, interpolation: str) -> Callable:
    layer = layer_at(problem.particles, problem.depths, interpolation)

    def drift(t, tokens):
        updates = [
            kappa * batched(mean, tree, problem.masks)(tokens)
            for kappa, mean, tree in zip(problem.kappas, means, layer(t), strict=True)
        ]
        return functools.reduce(jnp.add, updates)

    return drift
