"""Arrays of a record under their flat names "a/b", and the numbers among them.

One trap: JSON has no NaN. A number that is not finite becomes text, as in a manifest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


def flat(arrays: Mapping[str, Any], /) -> dict[str, np.ndarray]:
    """The arrays of a nested record under flat names, in alphabetical order.

    Args:
        arrays: The record.

    >>> list(flat({"loss": np.ones(2), "curves": {"4": np.ones(3)}}))
    ['curves/4', 'loss']
    """
    found: dict[str, np.ndarray] = {}
    for name, node in arrays.items():
        if isinstance(node, Mapping):
            found |= {f"{name}/{rest}": array for rest, array in flat(node).items()}
        else:
            found[name] = np.asarray(node)
    return dict(sorted(found.items()))


def scalars(arrays: Mapping[str, Any], /) -> dict[str, bool | int | float]:
    """The numbers of a record that stand alone, by their flat names.

    Args:
        arrays: The record.

    >>> scalars({"steps": np.array(12), "loss": np.ones(2)})
    {'steps': 12}
    """
    return {
        name: array.item()
        for name, array in flat(arrays).items()
        if array.ndim == 0 and array.dtype.kind in "biuf"
    }
