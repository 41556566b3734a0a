"""Images to train on: scikit-learn's handwritten digits, or a user's own in one of three forms.

    .npz       x_train, y_train and, if there, x_test, y_test
    CIFAR-10   the six files of its binary version, in a folder or a .tar.gz (experiments._cifar)
    folder     train/CLASS/*.png, test/CLASS/*.png (experiments._image_folders)

One trap: the form is told by what lies at the path and by the ends of names, not by what a file
holds; a file of another name is refused, not guessed at.
"""

import hashlib
import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

from experiments import _archives, _cifar
from experiments._image_folders import folder_images
from experiments._images import Images, every_fifth, readable_name, scaled
from meanfield import store

FORMS = (
    "an .npz file with x_train and y_train, the binary version of CIFAR-10 (its .tar.gz, or a "
    "folder of data_batch_1.bin to data_batch_5.bin and test_batch.bin), or a folder of images "
    "train/CLASS/*.png"
)

DAMAGE = (
    OSError, EOFError, ValueError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
"""What reading a member may raise: cut short, of absurd size, encrypted, or packed otherwise."""


def images(data: Path | None = None) -> Images:
    """The images that ``--data`` asks for, by what lies at the path, or without one the digits.

    Args:
        data: The value of the flag.

    Raises:
        ValueError: If what is there is not a set of labelled images.

    >>> images().x_train.shape
    (1442, 8, 8, 1)
    """
    if data is None:
        return digits()
    path = Path(data)
    try:
        return _from_folder(path) if path.is_dir() else _from_file(path)
    except OSError as error:
        said = error.strerror or error
        raise ValueError(f"{error.filename or path} cannot be read: {said}") from None


def _from_folder(path: Path) -> Images:
    if _cifar.is_cifar10(path):
        return _cifar.cifar10_images(path)
    if (path / "train").is_dir():
        return folder_images(path)
    raise ValueError(f"data must be {FORMS}, got {path}, a folder of other things")


def _from_file(path: Path) -> Images:
    if not path.exists():
        raise ValueError(f"data must be {FORMS}, got {path}, which does not exist")
    # To open a pipe would wait for ever.
    if path.is_file() and path.name.endswith(_archives.SUFFIXES):
        return _cifar.cifar10_images(path)
    if path.is_file() and path.suffix == ".npz":
        return images_from_npz(path)
    raise ValueError(f"data must be {FORMS}, got {path}")


def digits() -> Images:
    """The 1,797 handwritten digits, 8 x 8, that ship with scikit-learn; nothing is downloaded.

    Every fifth image of each class is a test image. The set holds no names of writers, so one
    writer may be in both parts: test accuracy is optimistic for an unseen hand.

    Raises:
        ValueError: If scikit-learn is not installed.

    References:
        Alpaydin and Kaynak 1998, *Optical Recognition of Handwritten Digits*, UCI repository.

    >>> digits().name
    'scikit-learn digits (1,797 images)'
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ValueError("digits need scikit-learn: pip install 'meanfield[experiments]'") from None
    rows, classes = load_digits(return_X_y=True)
    pixels, labels = np.reshape(rows, (-1, 8, 8)), np.asarray(classes, dtype=np.int32)
    raw = pixels.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()
    x = (pixels[..., None] / 16).astype(np.float32)
    test = every_fifth(labels)
    return Images(
        *(x[~test], labels[~test], x[test], labels[test]),
        name=f"scikit-learn digits ({len(labels):,} images)",
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def images_from_npz(path: Path) -> Images:
    """Labelled images from arrays x_train, y_train and, if there, x_test, y_test of an .npz file.

    Images are uint8 [n h w] or [n h w c], or floating-point in [0, 1]; labels are integers >= 0.
    Without a test part every fifth training image of each class is set aside as one.

    Args:
        path: The file. Nothing in it is executed: pickles are refused.

    Raises:
        ValueError: If the file or an array in it is not what is said here.

    >>> images_from_npz(Path("nowhere.npz"))
    Traceback (most recent call last):
    ValueError: data must be an .npz file, got nowhere.npz, which does not exist
    """
    path = Path(path)
    members = _members(path)
    x, y = _part(path, members, "train")
    if {"x_test", "y_test"} & set(members):
        x_test, y_test = _part(path, members, "test")
        if x_test.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"{path}: x_test must hold images like those of x_train, {list(x.shape[1:])}, got "
                f"{list(x_test.shape[1:])}"
            )
        if y_test.max() > y.max():
            raise ValueError(
                f"{path}: y_test must hold classes of y_train, up to {y.max()}, got {y_test.max()}"
            )
    else:
        test = every_fifth(y)
        if not test.any():
            raise ValueError(f"{path}: some class needs 5 images to set one aside, or add x_test")
        x, y, x_test, y_test = x[~test], y[~test], x[test], y[test]
    counts = f"{len(x):,} training, {len(x_test):,} test images"
    name = f"user .npz {readable_name(path)} ({counts})"
    return Images(x, y, x_test, y_test, name, store.checksum(path))


def standardised(images: Images, /) -> Images:
    """The images with mean 0 and variance 1 in each channel, as measured on the training part.

    A channel that is constant there is centred only.

    Args:
        images: Images in [0, 1].

    >>> abs(float(standardised(digits()).x_train.mean())) < 1e-6
    True
    """
    axes = (0, 1, 2)
    mean = images.x_train.mean(axis=axes, dtype=np.float64, keepdims=True)
    spread = images.x_train.std(axis=axes, dtype=np.float64, keepdims=True)
    mean, spread = mean.astype(np.float32), np.where(spread > 0, spread, 1).astype(np.float32)
    return images._replace(
        x_train=(images.x_train - mean) / spread, x_test=(images.x_test - mean) / spread
    )


def _members(path: Path) -> dict[str, np.ndarray]:
    try:
        path.stat()
        archived = path.is_file()
        if archived:
            # Of a path, is_zipfile says False even where it may not read.
            with path.open("rb") as file:
                archived = file.read(2) == b"PK" and zipfile.is_zipfile(file)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"data must be an .npz file, got {path}, which does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"data must be an .npz file that can be read, got {str(path)!r} ({reason})"
        ) from None
    if not archived:
        raise ValueError(f"data must be an .npz file with x_train and y_train, got {path}")
    members = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in ("x_train", "y_train", "x_test", "y_test"):
                if key in archive.files:
                    members[key] = _member(path, archive, key)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path} cannot be read: {error}; copy it again") from None
    return members


def _member(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except DAMAGE as error:
        said = "holds Python objects; save it as numbers" if "pickle" in str(error) else str(error)
        raise ValueError(f"{path}: {key} cannot be read: {said}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: {key} must be an array in the .npy format")
    return array


def _part(path: Path, members: dict[str, np.ndarray], part: str) -> tuple[np.ndarray, np.ndarray]:
    for key in (f"x_{part}", f"y_{part}"):
        if key not in members:
            raise ValueError(f"{path}: {key} is missing; an image set has x_train and y_train")
    x, y = members[f"x_{part}"], members[f"y_{part}"]
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(
            f"{path}: x_{part} must be images [n h w] or [n h w c], got shape {list(x.shape)}"
        )
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: y_{part} must be whole numbers [n], got {y.dtype} of shape {list(y.shape)}"
        )
    if len(x) != len(y):
        raise ValueError(f"{path}: y_{part} must be {len(x)} labels, one an image, got {len(y)}")
    if y.min() < 0 or y.max() >= len(y):
        # Labels size the readout: an absurd one would ask for absurd memory.
        raise ValueError(
            f"{path}: y_{part} must number its classes from 0 on, got {y.min()} to {y.max()} "
            f"on {len(y)} images"
        )
    return _pixels(path, f"x_{part}", x), y.astype(np.int32)


def _pixels(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    x = x.reshape(*x.shape[:3], -1)
    if x.dtype == np.uint8:
        return scaled(x)
    if x.dtype.kind != "f":
        raise ValueError(f"{path}: {key} must be uint8, or floats in [0, 1], got {x.dtype}")
    if not np.isfinite(x).all():
        bad = np.count_nonzero(~np.isfinite(x))
        raise ValueError(
            f"{path}: {key} must be finite, got {bad} NaN or infinite; drop those images"
        )
    if x.min() < 0 or x.max() > 1:
        raise ValueError(
            f"{path}: {key} must be uint8 or in [0, 1], got {x.min():g} to {x.max():g}; scale it"
        )
    return x.astype(np.float32)
