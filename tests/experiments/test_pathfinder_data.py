import zipfile

import numpy as np
import pytest
from PIL import Image

from experiments import _pathfinder_data
from experiments._dots import displacement_accuracy
from meanfield import tasks


def folder(root, count=20, size=8):
    """The layout of the Long Range Arena, two metadata files."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
    (root / "metadata").mkdir(parents=True)
    for part in (0, 1):
        (root / "imgs" / str(part)).mkdir(parents=True)
        rows = []
        for index in range(part, count, 2):
            Image.fromarray(pixels[index]).save(root / "imgs" / str(part) / f"sample_{index}.png")
            rows.append(
                f"imgs/{part} sample_{index}.png {index} {index % 3 % 2} 1.0 6 2 2 0.5 1 1\n"
            )
        (root / "metadata" / f"{part}.npy").write_text("".join(rows))
    return root, pixels


def read(path, images=99, test_images=99):
    return _pathfinder_data.pathfinder_images(path, images=images, test_images=test_images)


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_the_folder_is_read_whole(tmp_path):
    """Closed form: each image once, over 255, with the label its row holds; a tenth for tests."""
    root, pixels = folder(tmp_path / "lra")
    found = read(root)
    assert (len(found.y_train), len(found.y_test)) == (18, 2)
    every = np.concatenate([found.x_train, found.x_test])
    labels = np.concatenate([found.y_train, found.y_test])
    seen = []
    for image, label in zip(every, labels, strict=True):
        match = np.all(np.abs(255 * image[..., 0] - pixels) < 1e-3, axis=(1, 2))
        (index,) = np.flatnonzero(match)
        assert label == index % 3 % 2
        seen.append(index)
    assert sorted(seen) == list(range(20))
    assert (len(read(root, 5, 1).y_train), len(read(root, 5, 1).y_test)) == (5, 1)
    assert found.sha256 == read(root).sha256


def test_the_known_empty_file_is_left_out(tmp_path):
    """Closed form: the published easy level has one, and no other empty file is passed over."""
    root, _ = folder(tmp_path / "lra")
    (root / "imgs/0/sample_172.png").touch()
    with (root / "metadata/0.npy").open("a") as rows:
        rows.write("imgs/0 sample_172.png 172 1 1.0\n")
    assert len(read(root).y_train) == 18
    (root / "imgs/0/sample_4.png").write_bytes(b"")
    refused(root, "sample_4.png cannot be read")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("imgs/0 sample_0.png 0 2 1.0", "0.npy, line 11: a label must be 0 or 1, got '2'"),
        ("imgs/0 sample_0.png 0 0.5", "0.npy, line 11: a label must be 0 or 1, got '0.5'"),
        ("imgs/0 sample_0.png", "0.npy, line 11 must be a folder, a file, a number and a label"),
        ("../imgs sample_0.png 0 1", "line 11: the image ../imgs/sample_0.png leads out of"),
        ("/imgs sample_0.png 0 1", "line 11: the image /imgs/sample_0.png leads out of"),
        ("imgs/0 sample_99.png 0 1", "line 11: the image imgs/0/sample_99.png is missing"),
        ("imgs 0 0 1", "0 must be a file, got a folder"),
    ],
)
def test_bad_rows(tmp_path, row, message):
    """House rule: one sentence that names the file and the line."""
    root, _ = folder(tmp_path / "lra")
    with (root / "metadata/0.npy").open("a") as rows:
        rows.write(row + "\n")
    refused(root, message)


def test_bad_metadata(tmp_path):
    """House rule: bytes that are no text, NumPy's own format, pickles, none at all."""
    root, _ = folder(tmp_path / "lra")
    for content, message in (
        (b"imgs/0 sample_\xff.png 0 1\n", "1.npy, line 1: byte 15 is no UTF-8"),
        (b"\x93NUMPY\x01\x00", "1.npy is in NumPy's or pickle's own format"),
        (b"\x80\x04K\x01.", "never|not loaded; write the rows as plain text"),
    ):
        (root / "metadata/1.npy").write_bytes(content)
        refused(root, message)
    refused(root / "imgs", "got no metadata")


def test_bad_images(tmp_path):
    """House rule: unequal sizes, colours, bytes that are cut: the image is named."""
    root, pixels = folder(tmp_path / "lra")
    place = root / "imgs/0/sample_2.png"
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    refused(root, "sample_2.png cannot be read")
    Image.fromarray(np.stack([pixels[0]] * 3, axis=-1)).save(place)
    refused(root, "sample_2.png must be a square grey image of 8 bits .* got mode RGB and 8 × 8")
    Image.fromarray(pixels[0][:6, :6]).save(place)
    Image.fromarray(pixels[0]).save(place, format="BMP")
    refused(root, "sample_2.png cannot be read")
    place.write_bytes(whole[:16] + (30_000).to_bytes(4, "big") * 2 + whole[24:])
    refused(root, "sample_2.png cannot be read")
    place.rename(tmp_path / "outside.png")
    place.symlink_to(tmp_path / "outside.png")
    refused(root, "sample_2.png is a link that leads out of")
    place.unlink()
    Image.fromarray(pixels[0][:6, :6]).save(place)
    with pytest.raises(ValueError, match="images must have one size, . × . as the first one read"):
        read(root)


def test_npz_files(tmp_path):
    """Closed form: the arrays as they are, at most so many."""
    drawn = tasks.pathfinder(0, 12, dashes=3)
    path = tmp_path / "p.npz"
    arrays = {"x_train": drawn.images[:9], "y_train": drawn.labels[:9],
              "x_test": drawn.images[9:], "y_test": drawn.labels[9:]}  # fmt: skip
    np.savez(path, marks_train=drawn.dots, **arrays)
    found = read(path, images=7)
    np.testing.assert_array_equal(found.x_train[..., 0], np.float32(drawn.images[:7]) / 255)
    np.testing.assert_array_equal(found.y_test, drawn.labels[9:])
    np.savez(path, **(arrays | {"y_test": np.array([0, 1, 2])}))
    refused(path, "y_test must hold (labels|classes)")
    np.savez(path, **(arrays | {"y_train": drawn.labels[:9] + 1, "y_test": drawn.labels[9:] + 1}))
    refused(path, "y_train must hold labels 0 and 1, got 2")
    np.savez(path, **(arrays | {"x_train": drawn.images[:9, :30], "x_test": drawn.images[9:, :30]}))
    refused(path, "x_train must be square grey images, got .30, 32, 1.")
    np.savez(path, **(arrays | {"x_train": np.array([None] * 9)}))
    refused(path, "x_train cannot be read: holds Python objects")
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "data must be an .npz file")


def test_npz_members_that_lead_out(tmp_path):
    """House rule: nothing of such an archive is used."""
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../x_train.npy", b"")
    refused(path, "the member '../x_train.npy' leads out of the archive")
    (tmp_path / "p.pkl").write_bytes(b"\x80")
    refused(tmp_path / "p.pkl", "is a pickle or may hold one, .* numpy.savez")


def test_generated_images_are_the_generator_s():
    """Closed form: the first images train, the next ones test."""
    found, dots = _pathfinder_data.generated(4, images=6, test_images=2, dashes=3, distractors=1)
    drawn = tasks.pathfinder(4, 8, dashes=3, distractors=1)
    np.testing.assert_array_equal(found.x_test[..., 0], np.float32(drawn.images[6:]) / 255)
    np.testing.assert_array_equal(found.y_train, drawn.labels[:6])
    assert "our own generator" in found.name
    assert 0 <= dots <= 1


def test_members_that_cannot_be_read_are_named(tmp_path):
    """House rule: an encrypted member, packed bytes that are damaged, a method that is unknown."""
    path = tmp_path / "p.npz"
    np.savez_compressed(path, x_train=np.zeros((9, 8, 8), np.uint8), y_train=np.arange(9) % 2)
    whole = path.read_bytes()
    header = whole.index(b"PK\x01\x02")
    for place, value, message in (
        (header + 8, 1, "x_train cannot be read: .* is encrypted"),
        (header + 10, 99, "x_train cannot be read: "),
        (80, 0xFF, "x_train cannot be read: "),
    ):
        damaged = bytearray(whole)
        damaged[place] = value
        if place == header + 8:
            damaged[6] = 1
        path.write_bytes(damaged)
        refused(path, message)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_members_packed_by_other_methods(tmp_path, method):
    """Invariance: after a flipped byte the file is refused by name, or no image is another."""
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 256, (9, 8, 8), dtype=np.uint8),
              "y_train": np.arange(9) % 2, "x_test": np.zeros((2, 8, 8), np.uint8),
              "y_test": np.arange(2)}  # fmt: skip
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.save(member, array)
    whole, pixels = path.read_bytes(), read(path).x_train
    refusals = []
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            # A damaged directory may hide whole arrays, as if they had never been there.
            assert np.isin(read(path).x_train, pixels).all()
        except ValueError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 30
    assert all("p.npz" in refusal for refusal in refusals)


def test_the_displacement_of_the_dots_alone():
    """Closed form: a label that distance or displacement holds is told, a coin is not.

    The law (|across|, |down|) -> parity of |across| is none of the distance: cells are needed.
    """
    rng = np.random.default_rng(0)
    away = rng.integers(-9, 10, (4000, 2))
    distance = np.linalg.norm(away.astype(float), axis=1).astype(int)
    assert displacement_accuracy(away, distance % 2) == 1.0
    assert displacement_accuracy(away, np.abs(away[:, 0]) % 2) == 1.0
    coin = displacement_accuracy(away, rng.integers(0, 2, 4000))
    assert abs(coin - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_matched_images_have_no_such_cue():
    """Theorem: matched pairs have one displacement for both labels; without, the cue is large."""
    options = {"size": 16, "dashes": 2, "spread": 3, "distractors": 0}
    _, dots = _pathfinder_data.generated(images=1500, test_images=500, **options)
    assert dots > 0.5 + 15 * 0.5 / np.sqrt(2000)
    _, dots = _pathfinder_data.generated(images=400, test_images=200, matched=1, **options)
    # The best of four answers, on 600 images.
    assert abs(dots - 0.5) < 4 * 0.5 / np.sqrt(600)
