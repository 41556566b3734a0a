"""Places of runs: the directory to come, the hidden one it is written in, and the last step.

One trap: between looking and making, another process may have been faster; so each step here is one
that only one of them can take.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from meanfield.store import files

TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def vacant(out: Path, /) -> Path:
    """A place where a directory can be made, with its links followed.

    Args:
        out: The directory to come; it may exist only if it is empty.

    Raises:
        ValueError: If it cannot be one.

    >>> vacant(Path("/")).name
    Traceback (most recent call last):
    ValueError: out must be a new directory, got the mount point /; add a name
    """
    try:
        path = out.resolve()
        exists, empty = path.exists(), path.is_dir() and not any(path.iterdir())
    except (OSError, RuntimeError, ValueError) as error:
        # A loop of links is a RuntimeError, a NUL byte a ValueError.
        raise ValueError(files.unwritable(out, error)) from None
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


def parents(final: Path, /) -> list[Path]:
    """The parents made for a run, the innermost first.

    Args:
        final: The directory to come.

    Raises:
        ValueError: If one cannot be made; those made before are removed.

    >>> parents(Path("/run"))
    []
    """
    made: list[Path] = []
    try:
        missing = [parent for parent in final.parents if not parent.exists()]
        for parent in reversed(missing):
            # Another run may make the same parent meanwhile; then it is not ours to remove.
            with contextlib.suppress(FileExistsError):
                parent.mkdir()
                made.insert(0, parent)
    except BaseException as error:
        unmake(made)
        if isinstance(error, OSError):
            raise ValueError(files.unwritable(final, error)) from None
        raise
    return made


def partial_of(final: Path, /) -> Path:
    """The hidden directory of a run, made beside it.

    Args:
        final: The directory to come.

    Raises:
        ValueError: If it cannot be made.

    >>> import tempfile
    >>> partial_of(Path(tempfile.mkdtemp(), "run")).name[:13]
    '.run.partial-'
    """
    partial = final.with_name(f".{final.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir()
    except OSError as error:
        raise ValueError(files.unwritable(final, error)) from None
    return partial


def unmake(made: list[Path], /) -> None:
    """Removes the parents made for a run that came to nothing.

    Args:
        made: What :func:`parents` returned.

    >>> unmake([])
    """
    # Only what is empty: another run may have moved in.
    with contextlib.suppress(OSError):
        for parent in made:
            parent.rmdir()


def publish(partial: Path, final: Path, /) -> None:
    """Gives a whole run its name.

    Args:
        partial: The hidden directory.
        final: The directory to come.

    Raises:
        ValueError: If the name was taken meanwhile.
        OSError: If the disk says no; the run is then in ``partial``.

    >>> import tempfile
    >>> home = Path(tempfile.mkdtemp())
    >>> publish(partial_of(home / "run"), home / "run")
    """
    try:
        for written in partial.rglob("*"):
            files.sync(written)
        files.sync(partial)
        partial.replace(final)
    except OSError as error:
        # Hours of computing are not thrown away for a name.
        if error.errno in TAKEN:
            raise ValueError(
                f"{final} was taken while the run was computed; its whole record is in {partial}"
            ) from None
        raise OSError(error.errno, f"{error.strerror}; the run is in {partial}") from error
    files.sync(final.parent)
