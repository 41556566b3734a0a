"""Run directories: a record of arrays beside a manifest that says where they came from.

    NAME/record.npz      arrays under flat names "a/b", one for each leaf of a nested record
    NAME/manifest.json   experiment, config, seeds, versions, device, commit, times, checksums

A run is written into a hidden sibling ``.NAME.partial-…`` that is renamed when it is whole, so a
directory called NAME is always a finished run. Meanwhile ``.NAME.lock`` keeps others away.

One trap: a clock can be set back during a run. Wall time is read from the monotonic clock; only the
start is a date.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meanfield.store import files, locks, manifests, places, provenance, records


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
    final = places.vacant(Path(out))
    # The commit is that of the code now in memory; hours later the checkout may be another.
    opening = {
        "experiment": experiment,
        "config": provenance.plain(config),
        "commit": provenance.commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "resumed": [],
    }
    made = places.parents(final)
    try:
        with locks.locked(final):
            # Whoever had the lock before may just have finished.
            partial = places.partial_of(places.vacant(final))
            try:
                yield Draft(directory=partial, opening=opening, clock=time.monotonic())
                if not (partial / "manifest.json").exists():
                    raise ValueError(
                        f"the run {final.name} has no record: call save_record in its block"
                    )
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            places.publish(partial, final)
    except BaseException:
        places.unmake(made)
        raise


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
    record, page = draft.directory / "record.npz", draft.directory / "manifest.json"
    # A record whose manifest could not be written must not be left beside an older manifest.
    page.unlink(missing_ok=True)
    records.write_npz(record, arrays)
    manifest = draft.opening | {
        "wall_seconds": round(time.monotonic() - draft.clock, 3),
        "seeds": [int(seed) for seed in seeds],
        "data": dict(data or {}),
        "record": {"sha256": files.checksum(record), "bytes": record.stat().st_size},
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    return manifests.write_manifest(page, manifest)


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
    record, page = path / "record.npz", path / "manifest.json"
    try:
        if not (record.is_file() and page.is_file()):
            raise ValueError(
                f"{path} is no run: expected a directory with manifest.json and record.npz"
            )
        manifest = manifests.read_manifest(page)
        # One open file for both: what is checked is what is read.
        with record.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            _check(record, found, manifest["record"]["sha256"])
            file.seek(0)
            try:
                return Run(records.read_npz(file), manifest)
            except ValueError as error:
                raise ValueError(f"{record}: {error}; restore the file or run again") from None
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or error}): see to its permissions and disk"
        ) from None


def _check(record: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"{record} is not the record that was written: expected sha256 {expected}, got "
            f"{found}; restore the file or run again"
        )
