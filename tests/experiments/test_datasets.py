import errno
import hashlib
import io
import os
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments import _datasets
from meanfield import store


def pictures(count=20, size=4, channels=(3,), seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, size, size, *channels)
    return rng.integers(0, 256, shape, dtype=np.uint8), np.arange(count) % 4


@pytest.fixture
def arrays():
    (x_train, y_train), (x_test, y_test) = pictures(), pictures(8, seed=1)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.npz"


def test_digits_are_all_there():
    """Independent library: scikit-learn's own arrays, each image once, in order within its part."""
    found, bunch = _datasets.digits(), load_digits()
    assert found.x_train.dtype == np.float32
    assert found.x_train.shape[1:] == (8, 8, 1)
    assert (found.x_train.min(), found.x_train.max()) == (0.0, 1.0)
    every = np.concatenate([found.x_train, found.x_test]) * 16
    labels = np.concatenate([found.y_train, found.y_test])
    rows = sorted((label, *row) for label, row in zip(labels, every.reshape(1797, 64), strict=True))
    expected = sorted((label, *row) for label, row in zip(bunch.target, bunch.data, strict=True))
    assert rows == expected
    assert found.name == "scikit-learn digits (1,797 images)"


def test_digits_split_is_fixed_and_fair():
    """Closed form: the same split every time, a fifth of each class in the test part."""
    found, again = _datasets.digits(), _datasets.digits()
    np.testing.assert_array_equal(found.x_test, again.x_test)
    for digit, count in enumerate(np.bincount(load_digits().target)):
        assert (found.y_test == digit).sum() == count // 5
    pixels, labels = load_digits().data.astype(np.uint8), load_digits().target.astype(np.uint8)
    assert found.sha256 == hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_images_of_a_user(path, channels):
    """Closed form: pixels over 255, grey images with one channel, labels as they are."""
    x, y = pictures(channels=channels)
    np.savez_compressed(path, x_train=x, y_train=y, x_test=x[:3], y_test=y[:3], other=np.ones(2))
    found = _datasets.images(path)
    np.testing.assert_array_equal(found.x_train, np.float32(x.reshape(20, 4, 4, -1)) / 255)
    np.testing.assert_array_equal(found.y_train, y)
    np.testing.assert_array_equal(found.y_test, y[:3])
    assert found.y_train.dtype == np.int32
    assert found.name == "user .npz images.npz (20 training, 3 test images)"
    assert found.sha256 == store.checksum(path)


def test_members_beside_the_images_do_not_matter(path, arrays):
    """Invariance: names of classes, rows of a balanced part, even objects, which are not loaded."""
    np.savez(path, **arrays)
    plain = _datasets.images(path)
    np.savez_compressed(
        path,
        **arrays,
        class_names=np.array(["airplane", "bird", "cat", "deer"]),
        balanced_train=np.arange(16, dtype=np.int32),
        train_index=np.arange(20, dtype=np.int32),
        objects=np.array([{}]),
    )
    for found, expected in zip(_datasets.images(path)[:4], plain[:4], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_images_without_a_test_part(path):
    """Closed form: every fifth image of each class is set aside."""
    x, _ = pictures(10)
    np.savez(path, x_train=x, y_train=np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]))
    found = _datasets.images_from_npz(path)
    np.testing.assert_array_equal(found.x_test, np.float32(x[[4, 9]]) / 255)
    assert found.y_test.tolist() == [0, 1]
    assert len(found.x_train) == 8


def test_floating_images_in_the_unit_interval(path):
    """Closed form: what is already scaled stays as it is."""
    x, y = pictures()
    np.savez(path, x_train=x / 255.0, y_train=y, x_test=x[:1] / 255.0, y_test=y[:1])
    np.testing.assert_array_equal(_datasets.images_from_npz(path).x_train, np.float32(x / 255.0))


def test_standardised():
    """Closed form: mean 0, variance 1 in each channel of the training part, one map for both."""
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(50, 6, 6, 3)) * [1.0, 0.3, 0.0]
    x = np.float32(x)
    y = np.zeros(50, dtype=np.int32)
    found = _datasets.standardised(_datasets.Images(x, y, x[:9], y[:9], "noise", ""))
    # Rounding of float32 images, not of the float64 sums.
    np.testing.assert_allclose(found.x_train.mean((0, 1, 2), dtype=np.float64), 0, atol=2e-7)
    spread = found.x_train.std((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(spread, [1, 1, 0], atol=2e-7)
    np.testing.assert_array_equal(found.x_test, found.x_train[:9])
    assert found.x_train.dtype == np.float32


NAN = np.full((20, 4, 4), np.nan)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x_train": None}, "x_train is missing"),
        ({"y_train": None}, "y_train is missing"),
        ({"y_test": None}, "y_test is missing"),
        ({"x_train": np.array([None] * 20)}, "x_train cannot be read: holds Python objects"),
        ({"x_train": NAN}, "x_train must be finite, got 320 NaN"),
        (
            {"x_train": np.full((20, 4, 4), 255.0)},
            "x_train must be uint8 or in .0, 1., got 255 to 255; scale it",
        ),
        ({"x_train": np.zeros((20, 4, 4), int)}, "x_train must be uint8, .* got int64"),
        ({"x_train": np.zeros((20, 48), np.uint8)}, "must be images .* got shape .20, 48."),
        ({"x_train": np.zeros((0, 4, 4, 3), np.uint8)}, "must be images .* got shape .0, 4, 4, 3."),
        ({"y_train": np.arange(19)}, "y_train must be 20 labels, one an image, got 19"),
        ({"y_train": np.ones(20)}, "y_train must be whole numbers .n., got float64"),
        (
            {"y_train": np.ones((20, 1), int)},
            "y_train must be whole numbers .n., got int64 of shape",
        ),
        ({"y_train": np.arange(20) - 1}, "got -1 to 18"),
        ({"y_train": np.arange(20) + 10**9}, "number its classes from 0 on"),
        ({"x_test": np.zeros((8, 5, 5, 3), np.uint8)}, "x_test must hold images like those of"),
        ({"y_test": np.full(8, 7)}, "y_test must hold classes of y_train, up to 3, got 7"),
        ({"x_test": None, "y_test": None, "y_train": np.arange(20)}, "needs 5 images"),
    ],
)
def test_bad_arrays_are_named(path, arrays, changes, sentence):
    """House rule: one sentence that names the file and the array in it."""
    given = {key: array for key, array in (arrays | changes).items() if array is not None}
    np.savez(path, **given)
    with pytest.raises(ValueError, match=f"images[.]npz: .*{sentence}"):
        _datasets.images_from_npz(path)


def raw(content):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("x_train.npy", content)
    return archive.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "data must be an .npz file with x_train"),
        (b"not an archive", "data must be an .npz file with x_train"),
        (b"\x80\x04K\x01." + raw(b""), "data must be an .npz file with x_train"),
        (raw(b""), "x_train"),
        (raw(b"no array"), "x_train must be an array"),
        (raw(b"\x93NUMPY\x01\x00"), "x_train cannot be read"),
        (raw(b"x" * 99)[:90], "data must be an .npz file"),
    ],
    # An archive holds the time at which it was made, so its bytes are no name for a test.
    ids=[
        "empty",
        "text",
        "a pickle before",
        "empty member",
        "no array",
        "header cut",
        "archive cut",
    ],
)
def test_bad_files_are_named(path, content, sentence):
    """House rule: whatever bytes there are, one sentence that names the file."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"images[.]npz|{sentence}") as caught:
        _datasets.images_from_npz(path)
    assert sentence in str(caught.value)


def pairs(images):
    """Each image with its label, as bytes that compare."""
    every = zip(images.x_train, images.y_train, strict=True)
    return {(image.tobytes(), int(label)) for image, label in every} | {
        (image.tobytes(), int(label)) for image, label in zip(images[2], images[3], strict=True)
    }


def test_damaged_files_are_never_read_wrong(path, arrays):
    """Invariance: after a flipped byte the file is refused by name, or no image is another."""
    np.savez_compressed(path, **arrays)
    whole, content = pairs(_datasets.images_from_npz(path)), path.read_bytes()
    refusals = []
    for place in np.random.default_rng(4).integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            # A damaged directory may hide whole arrays, as if they had never been there.
            assert pairs(_datasets.images_from_npz(path)) <= whole
        except ValueError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 75
    assert all(str(path) in refusal for refusal in refusals)


def test_missing_files_are_named(tmp_path):
    """House rule: neither a missing file nor a folder is a data set."""
    with pytest.raises(ValueError, match=r"got nowhere[.]npz, which does not exist"):
        _datasets.images_from_npz(_datasets.Path("nowhere.npz"))
    with pytest.raises(ValueError, match=r"data must be an [.]npz file with x_train"):
        _datasets.images_from_npz(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "empty", "other.csv", "data_batch_1.bin", "pipe.npz"])
def test_what_fits_nothing_is_told_all_forms(tmp_path, name):
    """House rule: one sentence that names the three forms and what was found."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("1,2")
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073))
    os.mkfifo(tmp_path / "pipe.npz")
    path = tmp_path / name
    with pytest.raises(ValueError, match="^data must be an [.]npz file .* train/CLASS/") as caught:
        _datasets.images(path)
    assert "binary version of CIFAR-10" in str(caught.value)
    assert f"got {path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_that_cannot_be_looked_at(tmp_path, monkeypatch):
    """House rule: what the system refuses is one sentence, whatever the form."""
    with pytest.raises(ValueError, match="cannot be read: File name too long"):
        _datasets.images(tmp_path / ("a" * 300))

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "batch")

    (tmp_path / "train").mkdir()
    monkeypatch.setattr(_datasets.Path, "iterdir", refuse)
    with pytest.raises(ValueError, match="batch cannot be read: Permission denied"):
        _datasets.images(tmp_path)


def test_unreachable_files_are_named(tmp_path, monkeypatch):
    """House rule: a path the system refuses to look at is one sentence, not its OSError."""
    loop = tmp_path / "loop.npz"
    loop.symlink_to(loop)
    for path in (tmp_path / ("a" * 300), loop, _datasets.Path("nul\0byte")):
        with pytest.raises(ValueError, match="data must be an [.]npz file that can be read, got"):
            _datasets.images_from_npz(path)

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "images.npz").touch()
    # The file itself, then a parent: rights do not bind a superuser, so they are played here.
    for call in ("open", "stat"):
        monkeypatch.setattr(_datasets.Path, call, refuse)
        with pytest.raises(ValueError, match="images[.]npz' .Permission denied"):
            _datasets.images_from_npz(tmp_path / "images.npz")


def test_a_file_below_a_file_does_not_exist(tmp_path):
    """House rule: neither does what is said to lie in a file."""
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="which does not exist"):
        _datasets.images_from_npz(tmp_path / "file" / "images.npz")
