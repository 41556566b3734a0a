r"""What a flow is known by, so that it is not resumed as another.

One trap: functions have no checksum. A flow is known again by its numbers: those given, those in
the data, and the first step, which holds the energy and its gradient at the start.
"""

import hashlib
import math
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def identity(problem: Any, numbers: Any, solver: Any, rows: Any, /) -> dict[str, Any]:
    """What a flow is known by, in words and numbers that JSON can hold.

    Args:
        problem: Field, theta, observables and stop conditions.
        numbers: Save times, first step and tolerances.
        solver: The solver.
        rows: What is saved at each time, of which shapes and types count.

    >>> from meanfield import flow
    >>> problem = flow.gradient_field(abs), jnp.ones(2), {}, {}
    >>> identity(problem, (jnp.arange(2.0), 0.1, [1e-3, 1e-6]), None, ())["parameters"]
    'float32[2]'
    """
    (_, theta, _, stops), (times, first, tolerances) = problem, numbers
    return {
        "save times": f"{len(times)} from {times[0]:g} to {times[-1]:g} ({_digest(times)})",
        "parameters": _shapes(theta),
        "solver": re.sub(r"\s+", " ", re.sub(r" at 0x[0-9a-f]+", "", repr(solver))),
        "tolerances": [float(tolerance) for tolerance in tolerances],
        "observables": _shapes(rows),
        "stop conditions": sorted(stops),
        "first step": float(first),
        "start and data": _digest(problem),
    }


def check_same(here: dict[str, Any], there: dict[str, Any], where: Any, /) -> None:
    """Refuses to resume one flow as another.

    Args:
        here: What :func:`identity` returned.
        there: What it returned when the checkpoints were saved.
        where: The directory of the checkpoints, for the message.

    Raises:
        ValueError: If they differ.

    >>> check_same({"first step": 0.1}, {"first step": 0.2}, "runs")
    Traceback (most recent call last):
    ValueError: the checkpoints in runs are of another flow: first step was 0.2, here 0.1; name ...
    """
    # Another machine computes the first step to other last digits.
    close = math.sqrt(np.finfo(np.float32).eps)
    for name, value in here.items():
        other = there.get(name)
        if isinstance(value, float) and isinstance(other, float):
            same = math.isclose(value, other, rel_tol=close)
        else:
            same = value == other
        if not same:
            raise ValueError(
                f"the checkpoints in {where} are of another flow: {name} was {other}, here "
                f"{value}; name another directory to begin anew"
            )


def _shapes(tree: Any) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = (
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves
    )
    return ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)}".strip() for name, leaf in named)


def _digest(tree: Any) -> str:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if eqx.is_array_like(leaf):
            keys = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            array = np.asarray(jax.random.key_data(leaf) if keys else leaf)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]
