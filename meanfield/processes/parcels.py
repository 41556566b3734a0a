"""Trees of results as bytes, for another process of the same program.

    bytes  ->  an npz file: the arrays, and one text that says how they hang together

Unlike in a record, all comes back as it was: numbers of Python, numpy and jax apart, lists, tuples
and NamedTuples apart.

One trap: a NamedTuple travels by the name of its class, which is looked up among the modules that
the receiver has already loaded. Nothing is imported for a message, and nothing in it is executed.
"""

import io
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BRANCHES: dict[str, Any] = {"list": list, "tuple": tuple}
ARRAYS: dict[str, Any] = {
    "numpy": lambda array: array,
    "scalar": lambda array: array[()],
    "jax": jnp.asarray,
}


def packed(tree: Any, /) -> bytes:
    """The tree as bytes.

    Args:
        tree: Arrays, numbers, text and None in dicts, lists, tuples and NamedTuples.

    Raises:
        ValueError: If there is anything else in it.

    >>> unpacked(packed({"risk": [0.5, None], 2: (True, "completed")}))
    {'risk': [0.5, None], 2: (True, 'completed')}
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_described(tree, arrays))
    box = io.BytesIO()
    np.savez(box, *arrays, np.array(text))
    return box.getvalue()


def unpacked(parcel: bytes, /) -> Any:
    """The tree that :func:`packed` made these bytes of.

    Args:
        parcel: The bytes.

    Raises:
        ValueError: If a class in it is not known here, or there is a pickle in it.

    >>> unpacked(packed(np.float32(0.1)))
    np.float32(0.1)
    """
    with np.load(io.BytesIO(parcel), allow_pickle=False) as archive:
        return _rebuilt(json.loads(str(archive[archive.files[-1]])), archive)


def _described(node: Any, arrays: list[np.ndarray]) -> list[Any]:
    if node is None or type(node) in (bool, int, float, str):
        return ["plain", node]
    if isinstance(node, (np.ndarray, np.generic, jax.Array)):
        arrays.append(_portable(node))
        kind = "jax" if isinstance(node, jax.Array) else "numpy"
        return ["scalar" if isinstance(node, np.generic) else kind, len(arrays) - 1]
    if type(node) is dict:
        pairs = [[_described(key, arrays), _described(node[key], arrays)] for key in node]
        return ["dict", pairs]
    if type(node) in (list, tuple):
        return [type(node).__name__, [_described(part, arrays) for part in node]]
    if _is_named(type(node)):
        name = f"{type(node).__module__}:{type(node).__qualname__}"
        return [name, [_described(part, arrays) for part in node]]
    raise ValueError(
        "results that processes exchange must be made of arrays, numbers, text, dicts, lists, "
        f"tuples and NamedTuples, got {type(node).__name__}: return its arrays"
    )


def _portable(node: Any) -> np.ndarray:
    typed_key = isinstance(node, jax.Array) and jnp.issubdtype(node.dtype, jax.dtypes.prng_key)
    if typed_key or np.dtype(node.dtype).kind not in "biufcmMSU":
        raise ValueError(
            "arrays that processes exchange must hold numbers, truth values, dates or text, got "
            f"dtype {node.dtype}; cast it first, say to float32"
        )
    return np.asarray(node)


def _rebuilt(described: list[Any], archive: Any) -> Any:
    kind, held = described
    if kind == "plain":
        return held
    if kind in ARRAYS:
        return ARRAYS[kind](archive[f"arr_{held}"])
    if kind == "dict":
        return {_rebuilt(key, archive): _rebuilt(value, archive) for key, value in held}
    parts = [_rebuilt(part, archive) for part in held]
    return BRANCHES[kind](parts) if kind in BRANCHES else _named(kind)(*parts)


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not _is_named(found):
        raise ValueError(
            f"results hold a {name}, which is not known here: run the same version everywhere"
        )
    return found


def _is_named(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
