"""Files in a tar archive, read in memory: nothing is ever unpacked.

One trap: at a broken header or the end of the file ``tarfile`` stops as if nothing were missing,
so the mark of the archive's end is looked for.
"""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SUFFIXES = (".tar.gz", ".tgz", ".tar")
LARGEST = 2**30
"""Greatest size of a file in bytes."""


def members(path: Path, suffix: str, /, *, kind: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a tar archive whose names end alike.

    Args:
        path: The archive.
        suffix: The end of their names.
        kind: What each should be, for a message.

    Raises:
        ValueError: If the archive is cut short or damaged, or a member leads out of it.

    >>> list(members(Path("pyproject.toml"), ".txt", kind="review"))
    Traceback (most recent call last):
    ValueError: pyproject.toml is cut short or damaged at or after its beginning, ... copy it again
    """
    name = "its beginning, or is no archive"
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = f"the member {member.name!r}"
                _check_member(path, member, suffix, kind)
                if member.isfile() and member.name.endswith(suffix):
                    content = archive.extractfile(member)
                    yield member.name, content.read() if content else b""
            if archive.fileobj is None or archive.fileobj.read(512) != bytes(512):
                raise tarfile.ReadError("the mark of the archive's end is missing")
            # Checksums of a packed stream stand at its end, which tarfile does not reach.
            while archive.fileobj.read(2**20):
                pass
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = (str(error) or "no data").splitlines()[0].rstrip(":")
        raise ValueError(
            f"{path} is cut short or damaged at or after {name}: {said}; copy it again"
        ) from None


def _check_member(path: Path, member: tarfile.TarInfo, suffix: str, kind: str) -> None:
    steps = PurePosixPath(member.name)
    if steps.is_absolute() or ".." in steps.parts or "\\" in member.name:
        raise ValueError(
            f"{path}: the member {member.name!r} leads out of the archive; "
            "take the archive from its first source"
        )
    if not member.name.endswith(suffix) or member.isdir():
        return
    if not member.isfile():
        raise ValueError(
            f"{path}: the member {member.name!r} is a link and no {kind}; pack the files themselves"
        )
    if member.size > LARGEST:
        raise ValueError(
            f"{path}: the member {member.name!r} must have {LARGEST:,} bytes at most, got "
            f"{member.size:,}"
        )
