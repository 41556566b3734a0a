r"""Checkpoints: the state of a computation on disk, of which a good one is always there.

    checkpoint-00000007.mfc  =  one line of JSON {format, sha256, bytes}  +  an npz file

A checkpoint is one file, written beside its name, waited for, and renamed: a kill at any moment
leaves it whole or absent. The one before it is removed only when there are two newer ones. What is
read is checked against its sha256, so that a file cut short, changed, or of another kind is named
and passed over for the one before it.

One trap: a checkpoint is only as good as the code that reads it back. The versions are kept in it,
and others are warned of and not refused: the numbers may then differ in their last digits.

References:
    Pillai et al. 2014, *All File Systems Are Not Created Equal*, OSDI (rename and fsync).
"""

import contextlib
import functools
import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meanfield import checks
from meanfield.store import files, provenance, records

FORMAT = 1
"""The layout of a checkpoint; a reader refuses what is newer."""
_NAME = re.compile(r"checkpoint-(\d{8,})\.mfc")
_KIND = "meanfield checkpoint"
_LONGEST_HEADER = 400


class Checkpoints:
    """The checkpoints of one computation, in a directory of their own.

    Attributes:
        directory: Where they are; it is made when the first one is saved.
        seconds: A checkpoint is due this many seconds after the last one.
        steps: And after this many steps, if not None.
        stopping: Whether the computation is to save itself and stop.

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> checkpoints.save({"step": np.int64(3)})
    >>> checkpoints.load()
    {'step': array(3)}
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        seconds: float = 30.0,
        steps: int | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.directory, self.stopping = Path(directory), stopping
        self.seconds = checks.positive("seconds", seconds)
        self.steps = None if steps is None else checks.count("steps", steps)
        # The last one known to be good; what is older goes when a newer one is there.
        self._good: int | None = None
        self._origin = _origin()

    def save(self, arrays: Mapping[str, Any]) -> None:
        """Writes a checkpoint, and removes all but it and the one before.

        Args:
            arrays: A tree of arrays, as for ``save_record``.

        Raises:
            OSError: If it cannot be written; those that were there are there still.
        """
        origin = np.array(json.dumps(self._origin))
        content = records.npz_bytes({"state": arrays, "origin": origin})
        header = {
            _KIND: FORMAT,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            number = 1 + max((number for number, _ in self._numbered()), default=0)
            path = self.directory / f"checkpoint-{number:08d}.mfc"
            with files.replacing(path) as temporary, temporary.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(content)
            for older, old in self._numbered():
                if self._good is not None and older < self._good:
                    old.unlink()
        except OSError as error:
            raise OSError(
                error.errno,
                f"no checkpoint could be written to {self.directory} "
                f"({error.strerror or error}); those saved before are intact: make room or name "
                "another directory, and resume",
            ) from error
        self._good = number

    def load(self) -> dict[str, Any] | None:
        """The newest good checkpoint, as nested dicts of arrays; None if there is none yet.

        A bad one is named in a warning, and the one before it is used.

        Raises:
            ValueError: If there are checkpoints, and none of them is good.
        """
        faults: list[str] = []
        for number, path in reversed(self._numbered()):
            try:
                found = _read(path)
            except ValueError as fault:
                faults.append(str(fault))
                continue
            self._good = number
            self._sweep()
            for fault in faults:
                warnings.warn(f"{fault}; {path.name}, saved before it, is used", stacklevel=2)
            self._compare(path, json.loads(str(found["origin"])))
            return found.get("state", {})
        if faults:
            raise ValueError(
                f"none of the checkpoints in {self.directory} is good: {'; '.join(faults)}; "
                "restore one, or name another directory to begin anew"
            )
        return None

    def _numbered(self) -> list[tuple[int, Path]]:
        """Number and path of each checkpoint, the newest last."""
        if not self.directory.is_dir():
            return []
        named = ((_NAME.fullmatch(path.name), path) for path in self.directory.iterdir())
        return sorted((int(name[1]), path) for name, path in named if name)

    def _sweep(self) -> None:
        """Removes what a kill left half written."""
        # Where nothing can be removed, reading is still worth while.
        with contextlib.suppress(OSError):
            for partial in self.directory.glob(".checkpoint-*.mfc.partial-*"):
                partial.unlink(missing_ok=True)

    def _compare(self, path: Path, origin: Mapping[str, str]) -> None:
        names = sorted({*origin, *self._origin})
        others = [
            f"{name} {origin.get(name, 'none')}, now {self._origin.get(name, 'none')}"
            for name in names
            if origin.get(name) != self._origin.get(name)
        ]
        if others:
            warnings.warn(
                f"{path.name} was saved by other code ({'; '.join(others)}): what follows may "
                "differ in its last digits from a run without a break",
                stacklevel=3,
            )


@functools.cache
def _origin() -> dict[str, str]:
    # Asked once: the commit is that of the code now in memory, the checkout may soon be another.
    commit = provenance.commit()
    return provenance.versions() | ({"commit": commit["id"]} if commit else {})


def _read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; ValueError with a sentence if it is not good."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
            content = file.read()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror or error})") from None
    try:
        header = json.loads(line)
        version, digest, size = header[_KIND], header["sha256"], header["bytes"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path.name} is no checkpoint, or its first line was changed") from None
    if version != FORMAT:
        raise ValueError(
            f"{path.name} has format {version!r}, this version reads {FORMAT}: use the version "
            "that wrote it"
        )
    if not isinstance(size, int) or len(content) != size:
        raise ValueError(f"{path.name} is cut short: expected {size} bytes, got {len(content)}")
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ValueError(f"{path.name} was changed: expected sha256 {digest}, got {found}")
    return records.read_npz(io.BytesIO(content))
