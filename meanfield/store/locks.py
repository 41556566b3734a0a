"""Locks: one process at a time on the directory of a run.

The kernel lets go of a lock when its process ends, however it ends, so a lock left behind on this
host is taken over without asking whether some other process has its number by now.

One trap: on another host the kernel knows nothing, so a lock from there is never taken over.
"""

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from meanfield.store import files

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(final: Path) -> Iterator[None]:
    """Nobody else writes ``final`` during the block; the lock is the file ``.NAME.lock`` beside it.

    Args:
        final: The directory of a run, there or not. Its parent must exist.

    Raises:
        ValueError: If another process has the lock, or had it on another host.

    >>> import tempfile
    >>> with locked(Path(tempfile.mkdtemp(), "run")):
    ...     pass
    """
    path = final.with_name(f".{final.name}.lock")
    try:
        while (descriptor := _taken(path, final)) is None:
            pass
    except OSError as error:
        raise ValueError(files.unwritable(final, error)) from None
    try:
        yield
    finally:
        # Removed while it is held: the next holder sees that its file has gone, and tries again.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(path: Path, final: Path) -> int | None:
    """The open lock file with this process's name in it; None if it was removed meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        owner, _, host = os.read(descriptor, 300).decode(errors="replace").strip().partition(" ")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{final} is being written by process {owner or 'unknown'} on "
                f"{host or platform.node()}: wait for it, or name another directory"
            ) from None
        except OSError as error:
            # Some network file systems have no locks; the renaming of a run is whole without.
            if error.errno not in UNSUPPORTED:
                raise
        if host not in ("", platform.node()):
            raise ValueError(
                f"{final} was being written by process {owner} on {host}: if it has ended there, "
                f"remove {path}; else wait for it, or name another directory"
            )
        if not _is_at(path, descriptor):
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {platform.node()}\n".encode(), 0)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
