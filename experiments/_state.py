"""The state of a training and what was measured so far, as the arrays of a checkpoint and back.

One trap: what is not finite must not be saved over what is. A training that diverges can be looked
at where it last was finite, and one that goes on from there diverges again.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def saved(carry: Any, rows: list[dict[str, Any]], /) -> dict[str, Any] | None:
    """What a checkpoint holds of a training; None if it has diverged.

    Args:
        carry: Parameters and optimiser state.
        rows: What was measured, one row or more.

    >>> saved([jnp.array(jnp.nan)], [{"loss": 1.0}])
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(carry)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        return None
    table = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {"carry": numbered(leaves), "rows": table}


def restored(known: dict[str, Any], like: Any, /) -> tuple[Any, list[dict[str, Any]]]:
    """The state and the rows that :func:`saved` made these arrays of.

    Args:
        known: The arrays.
        like: A state of the same structure and types.

    >>> restored(saved([jnp.ones(())], [{"loss": 1.0}]), [jnp.zeros(())])[1][0]["loss"].item()
    1.0
    """
    leaves, structure = jax.tree.flatten(like)
    found = [jnp.asarray(known["carry"][str(at)], leaf.dtype) for at, leaf in enumerate(leaves)]
    table = known["rows"]
    count = len(next(iter(table.values())))
    rows = [{name: table[name][at] for name in table} for at in range(count)]
    return structure.unflatten(found), rows


def numbered(leaves: list[np.ndarray], /) -> dict[str, np.ndarray]:
    """Arrays under their places, as a checkpoint wants them.

    Args:
        leaves: The arrays.

    >>> list(numbered([np.zeros(1)]))
    ['0']
    """
    return {str(at): leaf for at, leaf in enumerate(leaves)}
