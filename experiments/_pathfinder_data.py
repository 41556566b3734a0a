"""Pathfinder images: the Long Range Arena's folder, an .npz file, or our own generator's.

    folder    imgs/K/sample_I.png and metadata/K.npy, plain text: "imgs/0 sample_0.png 0 LABEL ..."
    .npz      x_train, y_train and, if there, x_test, y_test: uint8 [n h w], labels 0 and 1

One trap: the metadata are plain text in spite of their name. A file in NumPy's own format may hold
pickles, which can run programs, and is refused.

References:
    Tay et al. 2021, arXiv 2011.04006 (Long Range Arena).
"""

import hashlib
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from experiments import _archives, _datasets, _inside
from experiments._datasets import Images
from experiments._dots import displacement_accuracy
from experiments._png import png_pixels
from meanfield import tasks

KNOWN_EMPTY = "imgs/0/sample_172.png"
"""Empty in the published easy level; it is left out and no other."""
CHECKED_ROWS = 4
"""Columns of the metadata that are read: folder, file, number, label."""


class _Row(NamedTuple):
    place: str
    image: str
    label: int


def generated(
    seed: int = 0, /, *, images: int, test_images: int, **options: Any
) -> tuple[Images, float]:
    """Images of our own generator, and the accuracy that the dots' displacement alone gives.

    The dots' displacement alone is what :mod:`experiments._dots` counts. The option ``matched`` of
    the generator takes this cue away.

    Args:
        seed: Seed of all of them.
        images: Training images.
        test_images: Test images, drawn after the training images.
        options: Options of ``meanfield.tasks.pathfinder``.

    >>> generated(images=20, test_images=1, dashes=3)[0].x_train.shape
    (20, 32, 32, 1)
    """
    drawn = tasks.pathfinder(seed, images + test_images, **options)
    x = (drawn.images[..., None] / np.float32(255)).astype(np.float32)
    raw = drawn.images.tobytes() + drawn.labels.astype("<i4").tobytes()
    size, dashes = drawn.images.shape[1], drawn.paths.shape[2]
    found = Images(
        *(x[:images], drawn.labels[:images], x[images:], drawn.labels[images:]),
        name=f"Pathfinder {size} × {size}, paths of {dashes} dashes, our own generator "
        f"({images:,} training, {test_images:,} test images)",
        sha256=hashlib.sha256(raw).hexdigest(),
    )
    return found, displacement_accuracy(drawn.dots[:, 0] - drawn.dots[:, 1], drawn.labels)


def pathfinder_images(path: Path, /, *, images: int, test_images: int) -> Images:
    """At most so many Pathfinder images from a user's folder or .npz file.

    Args:
        path: The file or folder. Nothing in it is executed: pickles are refused.
        images: Training images at most.
        test_images: Test images at most.

    Raises:
        ValueError: If anything in it is not what is said here.

    >>> pathfinder_images(Path("nowhere"), images=1, test_images=1)
    Traceback (most recent call last):
    ValueError: data must be an .npz file, got nowhere, which does not exist
    """
    path = Path(path)
    if path.is_dir():
        try:
            return _from_folder(path, images, test_images)
        except OSError as error:
            said = error.strerror or error
            raise ValueError(f"{error.filename or path} cannot be read: {said}") from None
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".npy"):
        raise ValueError(
            f"{path} is a pickle or may hold one, and a pickle can run programs: it is never "
            "loaded; write numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"
        )
    _check_members(path)
    whole = _datasets.images_from_npz(path)
    for key, labels in (("y_train", whole.y_train), ("y_test", whole.y_test)):
        if labels.max() > 1:
            raise ValueError(f"{path}: {key} must hold labels 0 and 1, got {labels.max()}")
    if whole.x_train.shape[1] != whole.x_train.shape[2] or whole.x_train.shape[3] != 1:
        raise ValueError(
            f"{path}: x_train must be square grey images, got {list(whole.x_train.shape[1:])}"
        )
    x, y, x_test, y_test = (
        whole.x_train[:images],
        whole.y_train[:images],
        whole.x_test[:test_images],
        whole.y_test[:test_images],
    )
    name = f"Pathfinder, {path.name} ({len(y):,} training, {len(y_test):,} test images)"
    return Images(x, y, x_test, y_test, name, whole.sha256)


def _check_members(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return  # `images_from_npz` says what is wrong with the file.
    for name in names:
        steps = PurePosixPath(name)
        if steps.is_absolute() or ".." in steps.parts or "\\" in name:
            raise ValueError(
                f"{path}: the member {name!r} leads out of the archive; "
                "take the archive from its first source"
            )


def _from_folder(path: Path, images: int, test_images: int) -> Images:
    rows, digest = _rows(path)
    # The published split is 80 : 10 : 10; the order is shuffled once and for all.
    order = np.random.default_rng(0).permutation(len(rows))
    cut = len(rows) * 9 // 10
    chosen = [order[:cut][:images], order[cut:][:test_images]]
    if not all(map(len, chosen)):
        raise ValueError(f"{path}: metadata must list 10 images or more, got {len(rows)}")
    parts, size = [], None
    for part in chosen:
        pixels = []
        for index in part:
            picture = _picture(path, rows[index], digest)
            size = picture.shape if size is None else size
            if picture.shape != size:
                raise ValueError(
                    f"{path / rows[index].image}: images must have one size, {size[0]} × {size[1]} "
                    f"as the first one read, got {picture.shape[0]} × {picture.shape[1]}"
                )
            pixels.append(picture)
        x = (np.stack(pixels)[..., None] / np.float32(255)).astype(np.float32)
        parts += [x, np.array([rows[index].label for index in part], np.int32)]
    name = f"Pathfinder, {path.name} ({len(parts[1]):,} training, {len(parts[3]):,} test images)"
    return Images(*parts, name=name, sha256=digest.hexdigest())


def _rows(path: Path) -> tuple[list[_Row], Any]:
    """What the metadata list, and a checksum begun with them."""
    files = sorted((path / "metadata").glob("*.npy"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise ValueError(
            f"{path}: data must be an .npz file or a folder of the Long Range Arena with metadata/"
            "*.npy and imgs/, one level such as curv_contour_length_14; got no metadata"
        )
    digest = hashlib.sha256()
    rows = []
    for file in files:
        content = file.read_bytes()
        digest.update(content)
        if content[:1] in (b"\x93", b"\x80"):
            raise ValueError(
                f"{file} is in NumPy's or pickle's own format, which can run programs, and is not "
                "loaded; write the rows as plain text with numpy.savetxt(FILE, rows, fmt='%s')"
            )
        for number, line in enumerate(content.splitlines(), 1):
            row = _row(f"{file}, line {number}", line)
            if row.image == KNOWN_EMPTY and _is_empty(path / row.image):
                continue
            rows.append(row)
    return rows, digest


def _is_empty(file: Path) -> bool:
    return file.exists() and not file.stat().st_size


def _row(place: str, line: bytes) -> _Row:
    try:
        words = line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte {error.start + 1} is no UTF-8; convert it") from None
    if len(words) < CHECKED_ROWS:
        raise ValueError(
            f"{place} must be a folder, a file, a number and a label, got {len(words)} words"
        )
    folder, name, _, label = words[:CHECKED_ROWS]
    image = PurePosixPath(folder) / name
    if image.is_absolute() or ".." in image.parts or "\\" in str(image):
        raise ValueError(f"{place}: the image {image} leads out of the folder")
    if label not in ("0", "1"):
        raise ValueError(f"{place}: a label must be 0 or 1, got {label!r}")
    return _Row(place, image.as_posix(), int(label))


def _picture(path: Path, row: _Row, digest: Any) -> np.ndarray:
    file = path / row.image
    if not os.path.lexists(file):
        raise ValueError(f"{row.place}: the image {row.image} is missing")
    content = _inside.content(path, row.image, most=_archives.LARGEST)
    digest.update(content)
    pixels = png_pixels(str(file), content)
    if pixels.ndim != 2 or pixels.shape[0] != pixels.shape[1]:
        mode = "L" if pixels.ndim == 2 else "RGB"
        raise ValueError(
            f"{file} must be a square grey image of 8 bits a pixel, got mode {mode} and "
            f"{pixels.shape[1]} × {pixels.shape[0]}"
        )
    return pixels
