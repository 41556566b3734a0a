r"""A gradient flow that survives: it saves itself now and then, and goes on from where it was.

    load or begin  ->  (a segment of about a second  ->  save, if due) ...  ->  solution

What is saved is all that the next segment needs, and the rows so far. Since a flow takes the same
steps wherever its segments end, neither the clock nor a kill can be seen in the solution.

One trap: on a GPU a compiler that tries kernels out may choose others the next time; bit for bit
holds where the same program is compiled to the same code, as on a CPU.
"""

import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from meanfield import progress as bars
from meanfield.flow.identity import check_same, identity
from meanfield.flow.record import COMPLETED, DIVERGED, EXHAUSTED, STOPPED
from meanfield.flow.segments import COUNTS, Carry, Segment, beginning, segment

RUNNING = "running"
_RESULTS = {
    COMPLETED: diffrax.RESULTS.successful,
    STOPPED: diffrax.RESULTS.event_occurred,
    EXHAUSTED: diffrax.RESULTS.max_steps_reached,
    DIVERGED: diffrax.RESULTS.dt_min_reached,
}
_SEGMENT_SECONDS = 1.0
_FIRST_EFFORT = 64


class Journey(NamedTuple):
    """How far a flow has come.

    Attributes:
        carry: What the next segment starts from.
        rows: Observables, energies and dissipated energies at the times passed.
        counts: Steps, accepted, rejected.
        result: ``"running"``, or how it ended.
        met: Names of the stop conditions that ended it.
    """

    carry: Carry
    rows: Any
    counts: np.ndarray
    result: str
    met: tuple[str, ...]


def checkable(checkpoints: Any, /) -> Any:
    """The checkpoints, if they can be saved and loaded.

    Args:
        checkpoints: What ``store.Checkpoints(directory)`` returned.

    Raises:
        ValueError: If it is anything else.

    >>> checkable("runs")
    Traceback (most recent call last):
    ValueError: checkpoint must be what store.Checkpoints(directory) returns, got 'runs'
    """
    if not all(
        hasattr(checkpoints, name) for name in ("load", "save", "seconds", "steps", "stopping")
    ):
        raise ValueError(
            f"checkpoint must be what store.Checkpoints(directory) returns, got {checkpoints!r}"
        )
    return checkpoints


def resumed(problem, times, first, tolerances, *, solver, max_steps, checkpoints, progress):
    """The solution of a flow that saves itself, and what was seen; as ``program.whole``.

    Args:
        problem: Field, theta, observables and stop conditions.
        times: Save times.
        first: First step.
        tolerances: rtol and atol.
        solver: An adaptive solver.
        max_steps: Steps after which it gives up.
        checkpoints: Where it saves itself, and how often.
        progress: Label of a progress bar, or None.

    Raises:
        ValueError: If what was saved there is another flow.
        KeyboardInterrupt: If ``checkpoints.stopping()`` said so; all is saved.

    >>> from meanfield import flow, ode
    >>> field = flow.gradient_field(lambda theta: theta**2)
    >>> problem, times = (field, jnp.ones(()), {}, {}), jnp.arange(2.0)
    >>> class Memory:
    ...     seconds, steps, load, save = 9.0, None, lambda self: None, lambda self, arrays: None
    ...     stopping = lambda self: False
    >>> given = {"max_steps": 99, "checkpoints": Memory(), "progress": None}
    >>> given |= {"solver": ode.RKC2()}
    >>> resumed(problem, times, jnp.array(0.1), jnp.array([1e-3, 1e-6]), **given)[1]
    {}
    """
    begun, rows = beginning(problem, times, first, tolerances, solver=solver)
    start = Journey(begun, jax.tree.map(np.asarray, rows), np.zeros(3, np.int64), RUNNING, ())
    known_by = identity(problem, (times, first, tolerances), solver, rows)
    journey, known = start, checkpoints.load()
    if known is not None:
        where = getattr(checkpoints, "directory", "memory")
        check_same(known_by, json.loads(str(known["identity"])), where)
        journey = _restored(known, start, max_steps)

    def advance(journey, steps, effort):
        pending = _pending(times, len(journey.rows[-1]))
        options = {"budget": jnp.asarray([steps, effort], jnp.int32), "solver": solver}
        found = segment(problem, times, pending, journey.carry, tolerances, **options)
        return _extended(journey, found, start, max_steps), int(found.effort)

    def save(journey):
        checkpoints.save(_arrays(journey, known_by))

    span = float(times[0]), float(times[-1])

    def share(journey):
        return (float(journey.carry.time) - span[0]) / (span[1] - span[0])

    with bars.bar(progress) as drawn:
        drawn(share(journey))
        if known is None:
            # Before hours are computed it is known whether they can be saved.
            save(journey)
        for stage in _journeys(journey, advance, save, checkpoints, max_steps):
            journey = stage
            drawn(share(journey))
    return _solution(journey, times), journey.rows[0]


def _journeys(journey: Journey, advance: Callable, save: Callable, every: Any, max_steps: int):
    """The journey after each of its segments, saved where that is due, and at its end."""
    saved, saved_steps = time.monotonic(), journey.counts[0]
    allowance = _FIRST_EFFORT
    while journey.result == RUNNING:
        steps = int(journey.counts[0])
        until = math.inf if every.steps is None else every.steps - (steps - saved_steps)
        began = time.monotonic()
        journey, spent = advance(journey, int(min(max_steps - steps, until, 2**30)), allowance)
        # Short enough for the host to be asked often, long enough for that to cost nothing.
        wanted = spent * _SEGMENT_SECONDS / max(time.monotonic() - began, 1e-9)
        allowance = int(min(max(wanted, 1), 4 * allowance, 2**30))
        done = journey.counts[0] - saved_steps
        stopping = journey.result == RUNNING and every.stopping()
        late = stopping or time.monotonic() - saved >= every.seconds
        if journey.result != RUNNING or late or (every.steps is not None and done >= every.steps):
            save(journey)
            saved, saved_steps = time.monotonic(), journey.counts[0]
        if stopping:
            raise KeyboardInterrupt
        yield journey


def _pending(times, passed: int):
    # Shifted to the front, for diffrax refuses times before the start, and no step passes a NaN.
    later = np.asarray(times)[passed:]
    return jnp.asarray(np.append(later, np.full(passed, np.nan, later.dtype)))


def _extended(journey: Journey, found: Segment, start: Journey, max_steps: int) -> Journey:
    new = int(np.sum(np.isfinite(np.asarray(found.reached))))
    rows = jax.tree.map(
        lambda old, more: np.concatenate([old, np.asarray(more)[:new]]), journey.rows, found.rows
    )
    counts = journey.counts + np.array([int(found.counts[name]) for name in COUNTS])
    met = tuple(name for name, hit in (found.met or {}).items() if hit)
    result = next((word for word, code in _RESULTS.items() if found.result == code), DIVERGED)
    if result == EXHAUSTED and counts[0] < max_steps:
        result = RUNNING
    carry = jax.tree.map(_placed, found.carry, start.carry)
    return Journey(carry, rows, counts, result, met)


def _placed(value: Any, like: jax.Array) -> jax.Array:
    """A value on the devices of another, if these are several."""
    several = len(like.sharding.device_set) > 1
    return jax.device_put(value, like.sharding) if several else jnp.asarray(value)


def _arrays(journey: Journey, known_by: dict[str, Any]) -> dict[str, Any]:
    return {
        "identity": np.array(json.dumps(known_by)),
        "carry": _numbered(journey.carry),
        "rows": _numbered(journey.rows),
        "counts": journey.counts,
        "result": np.array(journey.result),
        "met": np.array(json.dumps(journey.met)),
    }


def _numbered(tree: Any) -> dict[str, np.ndarray]:
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves(tree))
    # Types that numpy has no name for, such as bfloat16, are kept as their bits.
    plain = (leaf.view(f"u{leaf.itemsize}") if leaf.dtype.kind == "V" else leaf for leaf in leaves)
    return {str(number): leaf for number, leaf in enumerate(plain)}


def _restored(known: dict[str, Any], start: Journey, max_steps: int) -> Journey:
    def like(name, tree, placed):
        leaves, structure = jax.tree.flatten(tree)
        read = [known.get(name, {})[str(number)] for number in range(len(leaves))]
        return structure.unflatten(
            [placed(new.view(old.dtype), old) for new, old in zip(read, leaves, strict=True)]
        )

    counts, result = known["counts"], str(known["result"])
    if result in (RUNNING, EXHAUSTED):
        result = RUNNING if counts[0] < max_steps else EXHAUSTED
    return Journey(
        like("carry", start.carry, _placed),
        like("rows", start.rows, lambda new, old: new),
        counts,
        result,
        tuple(json.loads(str(known["met"]))),
    )


def _solution(journey: Journey, times) -> diffrax.Solution:
    """As ``diffrax`` would have returned it, had the flow been solved in one go."""
    carry, rows = journey.carry, journey.rows
    reached = np.full(len(times), np.inf)
    reached[: len(rows[-1])] = np.asarray(times)[: len(rows[-1])]
    ends: Any = jax.tree.map(lambda leaf: leaf[None], (carry.time, carry.state))
    options: dict[str, Any] = {"ts": (reached, ends[0]), "ys": (rows, ends[1])}
    return diffrax.Solution(
        t0=times[0],
        t1=times[-1],
        interpolation=None,
        stats=dict(zip(COUNTS, journey.counts.tolist(), strict=True)),
        result=_RESULTS[journey.result],
        solver_state=carry.solver,
        controller_state=carry.controller,
        made_jump=None,
        event_mask=dict.fromkeys(journey.met, True),
        **options,
    )
