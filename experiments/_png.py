"""Pixels of a PNG file, checked as a whole: each checksum in it, depth, size.

One trap: Pillow passes over the checksum of the pixels when it loads them, and keeps the upper 8 of
16 bits without a word. Both are looked at here.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from jaxtyping import UInt8

LARGEST = 1024
"""Greatest side of an image."""
MOST = 2**24
"""Greatest size of a file in bytes."""
DEPTH = 24
"""Place of the byte that says how many bits a pixel has."""


def png_pixels(place: str, content: bytes, /) -> UInt8[np.ndarray, "h w *c"]:
    """Pixels [h w] of a grey image, [h w 3] of a coloured one.

    Args:
        place: The file, for a message.
        content: What it holds.

    Raises:
        ValueError: If it is damaged, in another format, of another depth or too large.

    >>> png_pixels("a.png", b"GIF89a")
    Traceback (most recent call last):
    ValueError: a.png cannot be read: it is no PNG; copy it again
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError:
        raise ValueError("PNG files need Pillow: pip install 'meanfield[experiments]'") from None
    try:
        with warnings.catch_warnings():
            # Of sizes beyond reason and broken animations Pillow only warns.
            for kind in (UserWarning, Image.DecompressionBombWarning):
                warnings.simplefilter("error", kind)
            # Any other format would be opened by what it holds, whatever its name.
            with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
                mode, size = picture.mode, picture.size
                picture.verify()
            plain = mode in ("L", "RGB") and content[DEPTH] == 8 and max(size) <= LARGEST
            with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
                pixels = np.asarray(picture) if plain else None
    except (
        OSError, SyntaxError, EOFError, ValueError, IndexError, zlib.error, struct.error,
        UserWarning, Image.DecompressionBombWarning, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        said = "it is no PNG" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{place} cannot be read: {said}; copy it again") from None
    if pixels is None:
        raise ValueError(
            f"{place} must be a grey or RGB image of 8 bits a channel and {LARGEST} pixels a side "
            f"at most, got mode {mode} of {content[DEPTH]} bits and {size[0]} × {size[1]}; convert "
            "it"
        )
    return pixels
