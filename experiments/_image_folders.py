"""Images in folders of their classes: train/CLASS/*.png and test/CLASS/*.png.

Classes are numbered in the order of their names. Without a folder test every fifth training image
of each class is set aside. Hidden files are passed over; what else is no image is refused by name.

One trap: names are ordered as text, so "10" stands before "2".
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _inside
from experiments._images import Images, every_fifth, readable_name, scaled
from experiments._png import MOST, png_pixels


def folder_images(path: Path, /) -> Images:
    """Labelled images from a folder with a folder ``train`` and, if there, ``test``.

    Args:
        path: The folder. Links that lead out of it are refused.

    Raises:
        ValueError: If anything in it is not what is said here.

    >>> folder_images(Path("nowhere"))
    Traceback (most recent call last):
    ValueError: nowhere/train must be a folder, got ...
    """
    classes = _inside.listed(path, "train")
    if not classes:
        raise ValueError(f"{path / 'train'} must hold folders of images, one a class, got none")
    digest = hashlib.sha256()
    x, y = _part(path, "train", classes, None, digest)
    if "test" in _inside.listed(path, ""):
        x_test, y_test = _part(path, "test", classes, x[0], digest)
    else:
        aside = every_fifth(y)
        if not aside.any():
            raise ValueError(f"{path}: some class needs 5 images to set one aside, or add test")
        x, y, x_test, y_test = x[~aside], y[~aside], x[aside], y[aside]
    counts = f"{len(y):,} training, {len(y_test):,} test images"
    name = f"image folder {readable_name(path)} ({counts})"
    return Images(scaled(x), y, scaled(x_test), y_test, name, digest.hexdigest())


def _part(
    path: Path, part: str, classes: list[str], like: np.ndarray | None, digest: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n h w c] and labels of a part; ``digest`` takes in the names and files."""
    pixels, labels = [], []
    for name in _inside.listed(path, part):
        folder = f"{part}/{name}"
        if name not in classes:
            raise ValueError(f"{path / folder}: no class of this name is in {path / 'train'}")
        images = _inside.listed(path, folder)
        if not images:
            raise ValueError(f"{path / folder} must hold .png files, got none; take it away")
        for image in images:
            picture = _picture(path, f"{folder}/{image}", digest)
            like = picture if like is None else like
            if picture.shape != like.shape:
                raise ValueError(
                    f"{path / folder / image}: images must have one size and colour, [h w c] = "
                    f"{list(like.shape)} as the first one, got {list(picture.shape)}"
                )
            pixels.append(picture)
            labels.append(classes.index(name))
    if not pixels:
        raise ValueError(f"{path / part} must hold folders of images, one a class, got none")
    return np.stack(pixels), np.array(labels, np.int32)


def _picture(path: Path, name: str, digest: Any) -> np.ndarray:
    if not name.lower().endswith(".png"):
        raise ValueError(f"{path / name} must be a .png file; convert it or take it away")
    content = _inside.content(path, name, most=MOST)
    # A name may hold bytes that are no UTF-8; in the checksum they stand as they are.
    digest.update(name.encode("utf-8", "surrogateescape") + f"\0{len(content)}\0".encode())
    digest.update(content)
    pixels = png_pixels(str(path / name), content)
    return pixels.reshape(*pixels.shape[:2], -1)
