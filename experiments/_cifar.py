"""The binary version of CIFAR-10: six files of records, in a folder or a tar archive.

    record    a label 0 .. 9, then 32 x 32 red, 32 x 32 green, 32 x 32 blue: 3,073 bytes
    files     data_batch_1.bin .. data_batch_5.bin (training), test_batch.bin

One trap: the records have no checksum. What a flipped bit leaves a record cannot be refused; that
the data are others shows in their sha256 in the manifest.

References:
    Krizhevsky 2009, *Learning multiple layers of features from tiny images*.
"""

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np

from experiments import _archives, _inside
from experiments._images import Images, scaled

FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
"""Names of the folders as extracted; the second holds pickles, to be named as such."""
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
FILES = (*TRAIN, "test_batch.bin")
SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE**2
PUBLISHED = (50_000, 10_000)


def cifar10_images(path: Path, /) -> Images:
    """CIFAR-10 from the six files of its binary version.

    Args:
        path: The folder they are in, the folder around that, or a .tar.gz or .tar of either, which
            is read in memory.

    Raises:
        ValueError: If a file is missing, or is not what is said here.

    >>> cifar10_images(Path("experiments"))
    Traceback (most recent call last):
    ValueError: experiments: data_batch_1.bin is missing; ...
    """
    found = _from_folder(path) if path.is_dir() else _from_archive(path)
    digest, parts = hashlib.sha256(), []
    for name in FILES:
        if name not in found:
            raise ValueError(
                f"{path}: {name} is missing; the binary version of CIFAR-10 has {TRAIN[0]} to "
                f"{TRAIN[-1]} and {FILES[-1]} (its Python version is pickles and is never loaded)"
            )
        digest.update(f"{name}\0{len(found[name])}\0".encode() + found[name])
        parts.append(_records(f"{path}: {name}", found[name]))
    rows, test = np.concatenate(parts[:-1]), parts[-1]
    counts = (len(rows), len(test))
    said = "{:,} training, {:,} test images"
    if counts != PUBLISHED:
        said += "; the published set has {:,} and {:,}"
    return Images(
        *(*_images(rows), *_images(test)),
        name=f"CIFAR-10, binary version ({said.format(*counts, *PUBLISHED)})",
        sha256=digest.hexdigest(),
    )


def is_cifar10(folder: Path, /) -> bool:
    """Whether a folder, or the published one in it, holds a file of CIFAR-10 in any version.

    Args:
        folder: The folder.

    >>> is_cifar10(Path("nowhere"))
    False
    """
    return _place(folder) is not None


def _place(folder: Path) -> str | None:
    for place in (".", *FOLDERS):
        names = (name for file in FILES for name in (file, file.removesuffix(".bin")))
        if any((folder / place / name).exists() for name in names):
            return place
    return None


def _from_folder(path: Path) -> dict[str, bytes]:
    place = _place(path) or "."
    there = set(_inside.listed(path, place)) & set(FILES)
    return {
        name: _inside.content(path, f"{place}/{name}", most=_archives.LARGEST) for name in there
    }


def _from_archive(path: Path) -> dict[str, bytes]:
    found = {}
    for member, content in _archives.members(path, ".bin", kind="batch"):
        name = PurePosixPath(member).name
        if name not in FILES:
            continue
        if name in found:
            raise ValueError(f"{path}: {name} is in the archive twice; take one away")
        found[name] = content
    return found


def _records(place: str, content: bytes) -> np.ndarray:
    if not content or len(content) % RECORD:
        raise ValueError(
            f"{place} must hold records of {RECORD:,} bytes, got {len(content):,} bytes; "
            "copy it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    wrong = np.flatnonzero(rows[:, 0] >= CLASSES)
    if len(wrong):
        raise ValueError(
            f"{place}: labels must be 0 to {CLASSES - 1}, got {rows[wrong[0], 0]} in record "
            f"{wrong[0] + 1:,}; copy the file again"
        )
    return rows


def _images(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    colours_first = rows[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return scaled(colours_first.transpose(0, 2, 3, 1)), rows[:, 0].astype(np.int32)
