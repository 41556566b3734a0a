"""Files of a folder that a user names, and nothing outside it.

A link is followed only if it ends inside the folder. Hidden entries, which systems leave behind,
are passed over.

One trap: a folder on the way may be the link. So it is asked where the whole name ends.
"""

import os
from pathlib import Path


def listed(root: Path, name: str, /) -> list[str]:
    """Names of what lies in a folder of the user's folder, hidden entries left out, in order.

    Args:
        root: The user's folder.
        name: The folder in it.

    Raises:
        ValueError: If it is a file, or a link that leads out.

    >>> "_inside.py" in listed(Path(__file__).parents[1], "experiments")
    True
    """
    folder = _reached(root, name)
    if not folder.is_dir():
        said = "a file; take it away" if folder.exists() else "none"
        raise ValueError(f"{folder} must be a folder, got {said}")
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))


def content(root: Path, name: str, /, *, most: int) -> bytes:
    """What a file of the user's folder holds.

    Args:
        root: The user's folder.
        name: The file in it.
        most: Its greatest size in bytes.

    Raises:
        ValueError: If it is no file, too large, or a link that leads out.

    >>> content(Path(__file__).parent, "_inside.py", most=10_000)[:12]
    b'\"\"\"Files of '
    """
    file = _reached(root, name)
    # To open a pipe would wait for ever.
    if not file.is_file():
        said = "a folder" if file.is_dir() else "a pipe or a broken link"
        raise ValueError(f"{file} must be a file, got {said}; take it away")
    if (size := file.stat().st_size) > most:
        raise ValueError(f"{file} must have {most:,} bytes at most, got {size:,}")
    return file.read_bytes()


def _reached(root: Path, name: str) -> Path:
    file = root / name
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)):
        raise ValueError(f"{file} is a link that leads out of {root}; put there what it leads to")
    return file
