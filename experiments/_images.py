"""Labelled images in a training and a test part, as every loader hands them over.

    x [n h w c] in [0, 1], labels y [n] in {0, 1, ...}

One trap: pixels are float32 whatever the precision of the run. Cast them, or a float64 run computes
its first layer in float32.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8


class Images(NamedTuple):
    """Labelled images in a training and a test part, and where they come from.

    Attributes:
        x_train: Training images.
        y_train: Their labels.
        x_test: Test images.
        y_test: Their labels.
        name: What they are, in the words of a report.
        sha256: Checksum of the file; of a folder, of its names and files; for the digits, of their
            pixels and labels.
    """

    x_train: Float[np.ndarray, "n h w c"]
    y_train: Int[np.ndarray, " n"]
    x_test: Float[np.ndarray, "k h w c"]
    y_test: Int[np.ndarray, " k"]
    name: str
    sha256: str


def readable_name(path: Path, /) -> str:
    """Last step of a path for a report; bytes in it that are no UTF-8 as escapes.

    Args:
        path: The path.

    >>> readable_name(Path("data/images.npz"))
    'images.npz'
    """
    return path.absolute().name.encode("utf-8", "backslashreplace").decode()


def every_fifth(labels: Int[np.ndarray, " n"], /) -> np.ndarray:
    """Which images are set aside as a test part: every fifth of each class.

    Args:
        labels: Labels of all.

    >>> every_fifth(np.zeros(6, int)).astype(int).tolist()
    [0, 0, 0, 0, 1, 0]
    """
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[4::5]] = True
    return chosen


def scaled(pixels: UInt8[np.ndarray, "n h w c"], /) -> Float[np.ndarray, "n h w c"]:
    """Images in [0, 1] from pixels of 8 bits.

    Args:
        pixels: The pixels.

    >>> scaled(np.full((1, 1, 1, 1), 255, np.uint8)).item()
    1.0
    """
    # One array of float32 and no second: all of CIFAR-10 is 0.7 GB of them.
    return np.divide(np.ascontiguousarray(pixels), np.float32(255), dtype=np.float32)
