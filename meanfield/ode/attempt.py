"""One attempted step as a loop whose every pass evaluates the field once.

    F(y0) unless known  ->  F(y0 + d v) while the radius is unsettled  ->  F(Y_1) ... F(Y_s)

Trap: whatever stands in a compiled program is compiled, and a field is most of it: three loops
that each evaluate it take three times as long to compile as one loop that decides where to.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax

from meanfield.ode.chebyshev import Stage, combine, first_stage, next_stage
from meanfield.ode.radius import Radius, Search, probing_length, renewed, unsettled

Loop = Literal["lax", "checkpointed"]


class Point(NamedTuple):
    """A point of a solution: time, state, and the field there, whose value counts where `known`."""

    time: Any
    state: Any
    field: Any
    known: Any = True


class Step(NamedTuple):
    """One step: increment y1 - y0, field at its start and end, local error estimate."""

    increment: Any
    first: Any
    last: Any
    error: Any


class Attempt(NamedTuple):
    """A step, the radius it was taken with, and what both cost; no stages if it was not taken."""

    step: Step
    radius: Radius
    stages: Any
    evaluations: Any


class _Progress(NamedTuple):
    """What one pass of the loop hands to the next: F(y0) if known, radius, stage, last probe."""

    known: Any
    field: Any
    radius: Radius
    stage: Stage
    length: Any
    evaluations: Any


def attempt(
    rate: Callable,
    start: Point,
    h,
    radius: Radius,
    /,
    *,
    search: Search,
    stages: Callable,
    most: int,
    seen: Callable = lambda tree: tree,
    loop: Loop = "lax",
) -> Attempt:
    """One RKC2 step of length h, after as many products as a search for the radius asks for.

    Args:
        rate: (t, y) -> dy/dt, a tree like y.
        start: where the step begins; a field not known yet costs one evaluation more.
        h: step length, a floating scalar array.
        radius: what is known of the spectral radius; its direction may be None without a search.
        search: when the power iteration stops, whose products are differences of the field.
        stages: value of the radius -> number of stages, an integer scalar, at least 2, or 0 for
            a step that is not taken.
        most: bound on the evaluations, for reverse mode.
        seen: tree like the state -> the same without what has no part in the radius.
        loop: kind of `equinox` loop: "lax" (forward mode) or "checkpointed" (reverse mode).

    Returns:
        The step with the error estimate 0.8 (y0 - y1) + 0.4 h (F0 + F1), of third order in h.

    >>> known = Radius(jnp.ones(()), None, jnp.zeros(()), jnp.zeros((), int))
    >>> rest, start = Search(0, 0, 0), Point(0.0, jnp.ones(()), -jnp.ones(()))
    >>> found = attempt(
    ...     lambda t, y: -y, start, jnp.ones(()), known, search=rest, stages=lambda r: 2, most=2
    ... )
    >>> round(float(found.step.increment), 4)
    -0.5
    """

    def unfinished(progress):
        wanted = stages(progress.radius.value)
        pending = ~progress.known | (progress.stage.number < wanted)
        return unsettled(progress.radius, search) | ((wanted > 0) & pending)

    def body(progress):
        preparing = ~progress.known | unsettled(progress.radius, search)
        wanted = stages(progress.radius.value)
        return _pass(progress, rate, start, h, preparing, wanted, seen)

    known = jnp.asarray(start.known)
    begin = _Progress(
        known, start.field, radius, first_stage(start.field), h, jnp.zeros((), jnp.int32)
    )
    end = eqxi.while_loop(unfinished, body, begin, max_steps=most, kind=loop)
    return Attempt(_step(end, h), lax.stop_gradient(end.radius), end.stage.number, end.evaluations)


def _pass(progress, rate, start, h, preparing, stages, seen):  # noqa: PLR0917 a loop and all it holds fixed
    """One evaluation of the field, on the way to a radius or to the next stage."""
    following, time, shift = lax.cond(
        preparing,
        lambda: _before_probe(progress, start, h, seen),
        lambda: _before_stage(progress, start, h, stages),
    )
    value = rate(time, jax.tree.map(jnp.add, start.state, shift))
    following = following._replace(evaluations=progress.evaluations + 1)
    return lax.cond(
        preparing,
        lambda: _after_probe(following, value, seen),
        lambda: following._replace(stage=following.stage._replace(field=value)),
    )


def _before_probe(progress, start, h, seen):
    """Where a product is measured, or y0 itself while F(y0) is unknown."""
    if progress.radius.direction is None:
        return progress, start.time, jax.tree.map(jnp.zeros_like, start.state)
    length = probing_length(seen(start.state), seen(progress.field), h)
    length = jnp.where(progress.known, length, 0).astype(progress.length.dtype)
    shift = combine((length, progress.radius.direction))
    return progress._replace(length=length), start.time, lax.stop_gradient(shift)


def _after_probe(progress, value, seen):
    field = jax.tree.map(
        lambda new, old: jnp.where(progress.known, old, new), value, progress.field
    )
    radius = progress.radius
    if radius.direction is not None:
        change = lax.stop_gradient(seen(jax.tree.map(jnp.subtract, value, field)))
        image = combine((1 / jnp.where(progress.known, progress.length, 1), change))
        radius = jax.tree.map(
            lambda new, old: jnp.where(progress.known, new, old), renewed(radius, image), radius
        )
    stage = progress.stage._replace(field=field)
    return progress._replace(known=jnp.asarray(True), field=field, radius=radius, stage=stage)


def _before_stage(progress, start, h, stages):
    stage, share = next_stage(progress.stage, progress.field, h, stages)
    time = start.time + share.astype(h.dtype) * h
    return progress._replace(stage=stage), time, combine((stage.b, stage.total))


def _step(end, h):
    """0.8 (y0 - y1) + 0.4 h (F0 + F1) is an error estimate of third order."""
    stage, one = end.stage, jnp.ones_like(end.stage.b)
    increment = combine((stage.b, stage.total))
    weight = 0.4 * h.astype(one.dtype)
    error = combine((-0.8 * one, increment), (weight, end.field), (weight, stage.field))
    return Step(increment, end.field, stage.field, error)
