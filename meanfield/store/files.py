"""Files that are there as a whole or not at all, and their checksums.

One trap: ``os.replace`` is atomic only within one file system, so the temporary file lies beside
its target and not in the directory for temporary files.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that replaces it when the block has ended well.

    Args:
        path: The file to come. Its directory must exist.

    Yields:
        The temporary file, to be written and closed in the block.

    >>> import tempfile
    >>> with replacing(Path(tempfile.mkdtemp(), "a.txt")) as temporary:
    ...     _ = temporary.write_text("whole")
    """
    temporary = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def checksum(path: str | Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Args:
        path: The file.

    >>> checksum(os.devnull)[:8]
    'e3b0c442'
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file or directory has reached the disk.

    Args:
        path: The file or directory.

    >>> sync(Path())
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(out: Path, error: Exception) -> str:
    """The sentence for a place where no run can be written.

    Args:
        out: The place.
        error: What was said when it was tried.

    >>> unwritable(Path("run"), OSError(28, "No space left on device"))[-51:]
    "'run' (No space left on device); name another place"
    """
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"out must be where files can be written, got {str(out)!r} ({reason}); name another place"
    )
