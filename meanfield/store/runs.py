"""Run directories: a record of arrays beside a manifest that says where they came from.

    NAME/record.npz      arrays under flat names "a/b", one for each leaf of a nested record
    NAME/manifest.json   experiment, config, seeds, versions, device, commit, times, checksums

A run is written into a hidden sibling ``.NAME.partial-…`` that is renamed when it is whole, so a
directory called NAME is always a finished run.

One trap: a clock can be set back during a run. Wall time is read from the monotonic clock; only the
start is a date.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meanfield.store import files, provenance, records

FORMAT = 1
"""The layout of a run directory; a reader refuses what is newer."""


class Run(NamedTuple):
    """A finished run as read back: nested arrays, and the manifest."""

    arrays: dict[str, Any]
    manifest: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A run being written: where to write, and what was known when it began."""

    directory: Path
    opening: dict[str, Any]
    clock: float


@contextlib.contextmanager
def open_run(out: str | Path, *, experiment: str, config: Any = None) -> Iterator[Draft]:
    """A run directory that takes its name only when the block has ended well.

    Args:
        out: The directory to come; it may exist only if it is empty.
        experiment: What is run.
        config: Its choices: a dataclass, a mapping, or anything JSON can hold.

    Yields:
        The draft. Figures and reports go into ``draft.directory``, arrays through ``save_record``.

    Raises:
        ValueError: Before the block, if ``out`` cannot become a run; after it, without a record.

    >>> import tempfile
    >>> with open_run(f"{tempfile.mkdtemp()}/run", experiment="demo") as draft:
    ...     _ = save_record(draft, {"x": [1.0, 2.0]})
    """
    final = _vacant(Path(out))
    # The commit is that of the code now in memory; hours later the checkout may be another.
    opening = {
        "format": FORMAT,
        "experiment": experiment,
        "config": provenance.plain(config),
        "commit": provenance.commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    partial, made = _partial(final)
    try:
        yield Draft(directory=partial, opening=opening, clock=time.monotonic())
        if not (partial / "manifest.json").exists():
            raise ValueError(f"the run {final.name} has no record: call save_record in its block")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        _unmake(made)
        raise
    _publish(partial, final)


def save_record(
    draft: Draft,
    arrays: Mapping[str, Any],
    *,
    seeds: Sequence[int] = (),
    data: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The manifest of a draft, after writing it and the record beside it.

    Args:
        draft: The run being written.
        arrays: A tree of dicts, tuples and NamedTuples. Lists are leaves, as is all else; empty
            branches leave no trace.
        seeds: The seeds used.
        data: The checksum of each data set used, by its name.

    Raises:
        ValueError: If a leaf is not an array of numbers, truth values, dates or text, or a name
            cannot be a file name.

    >>> import tempfile
    >>> with open_run(f"{tempfile.mkdtemp()}/run", experiment="demo") as draft:
    ...     manifest = save_record(draft, {"x": 1.0}, seeds=[7])
    """
    record = draft.directory / "record.npz"
    records.write_npz(record, arrays)
    manifest = draft.opening | {
        "wall_seconds": round(time.monotonic() - draft.clock, 3),
        "seeds": [int(seed) for seed in seeds],
        "data": dict(data or {}),
        "record": {"sha256": files.checksum(record), "bytes": record.stat().st_size},
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    text = json.dumps(provenance.plain(manifest), indent=2, allow_nan=False, ensure_ascii=False)
    with files.replacing(draft.directory / "manifest.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return manifest


def load_run(path: str | Path) -> Run:
    """A finished run, its record checked against the checksum in its manifest.

    Args:
        path: The run directory.

    Raises:
        ValueError: If there is no run, its format is newer, or its record is not the one written.

    >>> load_run("nowhere")
    Traceback (most recent call last):
    ValueError: nowhere is no run: expected a directory with manifest.json and record.npz
    """
    path = Path(path)
    record = path / "record.npz"
    if not (record.is_file() and (path / "manifest.json").is_file()):
        raise ValueError(
            f"{path} is no run: expected a directory with manifest.json and record.npz"
        )
    manifest, expected = _read_manifest(path / "manifest.json")
    # One open file for both: what is checked is what is read.
    with record.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ValueError(
                f"{record} is not the record that was written: expected sha256 {expected}, got "
                f"{found}; restore the file or run again"
            )
        file.seek(0)
        return Run(records.read_npz(file), manifest)


def _vacant(out: Path) -> Path:
    try:
        path = out.resolve()
        exists, empty = path.exists(), path.is_dir() and not any(path.iterdir())
    except (OSError, RuntimeError, ValueError) as error:
        # A loop of links is a RuntimeError, a NUL byte a ValueError.
        raise ValueError(_unwritable(out, error)) from None
    if os.path.ismount(path):
        raise ValueError(f"out must be a new directory, got the mount point {out}; add a name")
    if exists and not path.is_dir():
        raise ValueError(f"out must be a directory, got {out}, which is a file; name another")
    if exists and not empty:
        raise ValueError(
            f"out must be a new or empty directory, got {out}, which has files in it; "
            "name another or remove it"
        )
    return path


def _partial(final: Path) -> tuple[Path, list[Path]]:
    """The hidden directory of a run, and the parents made for it, the innermost first."""
    partial = final.with_name(f".{final.name}.partial-{secrets.token_hex(4)}")
    made: list[Path] = []
    try:
        missing = [parent for parent in partial.parents if not parent.exists()]
        for parent in reversed(missing):
            # Another run may make the same parent meanwhile; then it is not ours to remove.
            with contextlib.suppress(FileExistsError):
                parent.mkdir()
                made.insert(0, parent)
        partial.mkdir()
    except BaseException as error:
        _unmake(made)
        if isinstance(error, OSError):
            raise ValueError(_unwritable(final, error)) from None
        raise
    return partial, made


def _unmake(made: list[Path]) -> None:
    # Only what is empty: another run may have moved in.
    with contextlib.suppress(OSError):
        for parent in made:
            parent.rmdir()


def _unwritable(out: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"out must be where files can be written, got {str(out)!r} ({reason}); name another place"
    )


def _publish(partial: Path, final: Path) -> None:
    for written in partial.rglob("*"):
        files.sync(written)
    files.sync(partial)
    try:
        partial.replace(final)
    except OSError:
        # Somebody took the name meanwhile; hours of computing are not thrown away for that.
        raise ValueError(
            f"{final} was taken while the run was computed; its whole record is in {partial}"
        ) from None
    files.sync(final.parent)


def _read_manifest(path: Path) -> tuple[dict[str, Any], str]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found, expected = manifest["format"], manifest["record"]["sha256"]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no manifest of a run: restore it or run again") from None
    if found != FORMAT:
        raise ValueError(
            f"{path} has format {found}, this version reads {FORMAT}: use the version that wrote it"
        )
    return manifest, expected
