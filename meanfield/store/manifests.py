"""Manifests: what a run was, in JSON that carries its own checksum.

    manifest["checksum"] = sha256 of all else, with sorted names and without spaces

One trap: a changed digit in a manifest is still JSON, so without that checksum a damaged
configuration would be believed.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meanfield.store import files, provenance

FORMAT = 3
"""The layout of a run directory; a reader refuses what is newer.

Format 1 had no checksum here, and neither it nor 2 said when a run was resumed.
"""

FORM: dict[str, Any] = {
    "format": int,
    "experiment": str,
    "config": object,
    "commit": (type(None), {"id": str, "dirty": bool}),
    "started": str,
    "resumed": list,
    "wall_seconds": (int, float),
    "seeds": list,
    "data": dict,
    "record": {"sha256": str, "bytes": int},
    "versions": dict,
    "device": {
        "platform": str,
        "cores": (type(None), int),
        "backend": str,
        "devices": list,
        "x64": bool,
    },
}
"""What a manifest holds; all of it, and nothing else."""


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as it was written, with its checksum.

    Args:
        path: The file.
        manifest: What to write; the format is added.

    Raises:
        ValueError: If a part of it has no form in JSON.

    >>> import tempfile
    >>> write_manifest(Path(tempfile.mkdtemp(), "manifest.json"), {"seeds": [7]})["format"]
    3
    """
    whole = provenance.plain({"format": FORMAT} | dict(manifest))
    whole["checksum"] = _checksum(whole)
    text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False)
    with files.replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return whole


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a file, checked against its own checksum.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no manifest, is damaged, or has a newer format.

    >>> read_manifest(Path("/dev/null"))
    Traceback (most recent call last):
    ValueError: /dev/null is no manifest of a run: restore it or run again
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        # A reader of a newer format checks it in its own way.
        known = type(found) is int and 1 <= found <= FORMAT
        sealed = manifest.pop("checksum", None) if known else None
        whole = (found == 1 and sealed is None) or sealed == _checksum(manifest)
    # Brackets without end are a RecursionError.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is no manifest of a run: restore it or run again") from None
    if not known:
        raise ValueError(
            f"{path} has format {found!r}, this version reads 1 to {FORMAT}: "
            "use the version that wrote it"
        )
    if not whole:
        raise ValueError(
            f"{path} is not the manifest that was written: its checksum does not fit; "
            "restore the file or run again"
        )
    form = FORM if found > 2 else {name: FORM[name] for name in FORM if name != "resumed"}
    if not _fits(manifest, form):
        raise ValueError(
            f"{path} is no manifest of a run: expected {', '.join(FORM)} in it, each of its kind; "
            "use the version that wrote it"
        )
    return manifest | ({"checksum": sealed} if sealed else {})


def _fits(value: Any, form: Any) -> bool:
    if isinstance(form, tuple):
        return any(_fits(value, one) for one in form)
    if isinstance(form, dict):
        return (
            isinstance(value, dict)
            and value.keys() == form.keys()
            and all(_fits(value[name], form[name]) for name in form)
        )
    # JSON has no infinity, but a number can be too long for a float.
    return isinstance(value, form) and (not isinstance(value, float) or math.isfinite(value))


def _checksum(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
