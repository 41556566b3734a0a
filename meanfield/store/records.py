"""Records: trees of arrays in one npz file, under flat names "a/b".

Two trees are the same record if and only if their files are the same bytes.

One trap: numpy writes bfloat16 arrays and reads them back as raw bytes without a word, and an
object array is a pickle, which is a program. Both are refused.

References:
    NumPy enhancement proposal 1, *A simple file format for NumPy arrays*.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from meanfield.store import files


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a tree of arrays, replacing the file at once.

    Args:
        path: The file.
        arrays: A tree of dicts, tuples and NamedTuples. Lists are leaves, as is all else; empty
            branches leave no trace.

    Raises:
        ValueError: If a leaf is not an array of numbers, truth values, dates or text, or a name
            cannot be a file name.

    >>> import tempfile
    >>> write_npz(Path(tempfile.mkdtemp(), "a.npz"), {"x": [1.0, 2.0]})
    """
    flat = _flat(arrays)
    with files.replacing(path) as temporary:
        _archive(temporary, flat)


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of the npz file of a tree of arrays.

    Args:
        arrays: As for :func:`write_npz`.

    Raises:
        ValueError: As :func:`write_npz`.

    >>> read_npz(io.BytesIO(npz_bytes({"a": {"x": 1.0}})))
    {'a': {'x': array(1.)}}
    """
    box = io.BytesIO()
    _archive(box, _flat(arrays))
    return box.getvalue()


def _archive(file: Path | io.BytesIO, flat: Mapping[str, np.ndarray]) -> None:
    # np.savez takes the names as keywords, so an array called "file" would break it.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in flat.items():
            # A ZipInfo carries no clock: equal arrays give equal bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_npz(file: str | Path | io.BufferedIOBase) -> dict[str, Any]:
    """The nested dict of arrays in an npz file; pickles are refused.

    Args:
        file: The file or its path.

    Raises:
        ValueError: If it is no such file.

    >>> import io
    >>> read_npz(io.BytesIO(b""))
    Traceback (most recent call last):
    ValueError: expected a record of arrays, got a file that is none (File is not a zip file)
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _nested({name: _member(archive, name) for name in archive.namelist()})
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 (zipfile and numpy raise ten kinds on foreign bytes)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"expected a record of arrays, got a file that is none ({reason})"
        ) from None


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # Stored as it is: no member can be larger than the file it is in.
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED or not name.endswith(".npy"):
        raise ValueError(f"{name} is no array of a record")
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _flat(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    try:
        leaves = jax.tree_util.tree_leaves_with_path(dict(arrays), is_leaf=_is_leaf)
    except (TypeError, ValueError):
        raise ValueError("names in a record must be text, got others among them") from None
    flat = {}
    for path, leaf in leaves:
        parts = [jax.tree_util.keystr((part,), simple=True) for part in path]
        name = "/".join(parts)
        if any(part in ("", ".", "..") or set(part) & set("/\\\0") for part in parts):
            raise ValueError(f"a name in a record must do as a file name, got {name!r}; rename it")
        if name in flat:
            raise ValueError(f"names in a record must differ, got {name!r} twice; rename one")
        flat[name] = _array(name, leaf)
    return flat


def _is_leaf(node: Any) -> bool:
    return node is None or isinstance(node, list)


def _array(name: str, leaf: Any) -> np.ndarray:
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array, got {type(leaf).__name__}: {error}") from None
    if array.dtype.kind not in "biufcmMSU":
        raise ValueError(
            f"{name} must hold numbers, truth values, dates or text, got dtype {array.dtype}; "
            "cast it first, say to float32"
        )
    return array


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, array in flat.items():
        *branches, last = name.removesuffix(".npy").split("/")
        node = nested
        for branch in branches:
            node = node.setdefault(branch, {})
        node[last] = array
    return nested
