"""Folders of images by class, and the pixels of single PNG files."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments import _datasets, _png

NAMES = {"train": {"cat": 3, "dog": 2, "10": 5}, "test": {"dog": 1, "cat": 2}}


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def folder(path, names=NAMES, shape=(5, 4, 3)):
    """A folder of random images; the pixels of each by its name."""
    rng = np.random.default_rng(0)
    pixels = {}
    for part, classes in names.items():
        for name, count in classes.items():
            (path / part / name).mkdir(parents=True)
            for number in range(count):
                place = f"{part}/{name}/{number}.png"
                pixels[place] = rng.integers(0, 256, shape, dtype=np.uint8)
                (path / place).write_bytes(png(pixels[place]))
    return path, pixels


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        _datasets.images(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 6)])
def test_images_and_classes_in_order(tmp_path, shape):
    """Numpy loop: each image under the number of its class, names in order, grey or coloured."""
    path, pixels = folder(tmp_path / "zoo", shape=shape)
    found = _datasets.images(path)
    digest = hashlib.sha256()
    for part, x, y in (("train", *found[:2]), ("test", *found[2:4])):
        names = sorted(name for name in pixels if name.startswith(part))
        assert len(x) == len(names)
        for one, label, name in zip(x, y, names, strict=True):
            np.testing.assert_array_equal(one, np.float32(pixels[name]).reshape(one.shape) / 255)
            assert ["10", "cat", "dog"][label] == name.split("/")[1]
            content = (path / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    assert found.x_train.shape[1:] == (*shape, 1)[:3]
    assert found.sha256 == digest.hexdigest()
    assert found.name == "image folder zoo (10 training, 3 test images)"


def test_a_folder_without_a_test_part(tmp_path):
    """Closed form: every fifth image of each class is set aside, as of an .npz file."""
    path, pixels = folder(tmp_path, {"train": {"a": 5, "b": 9}})
    found = _datasets.images(path)
    expected = [pixels["train/a/4.png"], pixels["train/b/4.png"]]
    np.testing.assert_array_equal(found.x_test, np.float32(expected) / 255)
    assert (len(found.x_train), found.y_test.tolist()) == (12, [0, 1])
    few, _ = folder(tmp_path / "few", {"train": {"a": 4}})
    refused(few, "some class needs 5 images to set one aside, or add test")


def test_names_that_are_no_utf8(tmp_path):
    """House rule: any name can be written into a report, and still tells classes apart."""
    path, _ = folder(tmp_path / "zoo\udcff", {"train": {"a\udcfe": 5, "b": 5}})
    found = _datasets.images(path)
    assert found.name == r"image folder zoo\udcff (8 training, 2 test images)"
    assert found.y_test.tolist() == [0, 1]


def test_hidden_entries_are_passed_over(tmp_path):
    """Invariance: what systems leave behind changes neither images nor checksum."""
    path, _ = folder(tmp_path)
    whole = _datasets.images(path)
    (path / "README").write_text("beside the parts anything may lie")
    for place in (".DS_Store", "train/.DS_Store", "train/cat/._0.png", "test/dog/.hidden"):
        (path / place).write_bytes(b"\0")
    (path / "train/.git").mkdir()
    assert _datasets.images(path).sha256 == whole.sha256


@pytest.mark.parametrize(
    ("place", "content", "sentence"),
    [
        ("train/cat/a.jpg", b"x", "train/cat/a.jpg must be a .png file"),
        ("train/cat/Thumbs.db", b"x", "train/cat/Thumbs.db must be a .png file"),
        ("train/notes.txt", b"x", "train/notes.txt must be a folder, got a file"),
        ("train/cat/more/a.png", b"x", "train/cat/more must be a .png file"),
        ("train/cat/a.png/a.png", b"x", "train/cat/a.png must be a file, got a folder"),
        ("test/bird/a.png", b"x", "test/bird: no class of this name is in"),
        ("train/cat/a.png", b"", "train/cat/a.png cannot be read: it is no PNG"),
        ("train/cat/a.png", b"GIF89a", "train/cat/a.png cannot be read: it is no PNG"),
        ("train/cat/a.png", b"\x89PNG\r\n\x1a\n", "train/cat/a.png cannot be read"),
        (
            "train/cat/a.png",
            png(np.zeros((5, 5, 3), np.uint8)),
            r"train/cat/a.png: images must have one size and colour, .* \[5, 4, 3\] as the first "
            r"one, got \[5, 5, 3\]",
        ),
        ("test/cat/a.png", png(np.zeros((5, 4), np.uint8)), r"test/cat/a.png: .* got \[5, 4, 1\]"),
        ("test/cat/a.png", png(np.zeros((5, 4, 4), np.uint8)), "got mode RGBA of 8 bits"),
        ("test/cat/a.png", png(np.zeros((5, 4), np.uint16)), "got mode I;16 of 16 bits"),
        ("test/cat/a.png", png(np.zeros((5, 4), bool)), "got mode 1 of 1 bits and 4 × 5"),
        ("test/cat/a.png", png(np.zeros((1, 1025), np.uint8)), "got mode L of 8 bits and 1025 × 1"),
    ],
)
def test_foreign_and_damaged_files_are_named(tmp_path, place, content, sentence):
    """House rule: one sentence that names the file."""
    path, _ = folder(tmp_path)
    (path / place).parent.mkdir(parents=True, exist_ok=True)
    (path / place).write_bytes(content)
    refused(path, sentence)


def test_other_refusals(tmp_path):
    """House rule: empty folders, a part that is a file, files too large, pipes."""
    path, _ = folder(tmp_path / "a")
    with (path / "train/cat/big.png").open("wb") as file:
        file.truncate(_png.MOST + 1)
    refused(path, "big.png must have 16,777,216 bytes at most, got 16,777,217")
    (path / "train/cat/big.png").unlink()
    os.mkfifo(path / "train/cat/pipe.png")
    refused(path, "pipe.png must be a file, got a pipe or a broken link")
    (path / "train/cat/pipe.png").unlink()
    (path / "train/empty").mkdir()
    refused(path, "train/empty must hold .png files, got none")
    bare = tmp_path / "bare"
    (bare / "train").mkdir(parents=True)
    refused(bare, "train must hold folders of images, one a class, got none")
    other, _ = folder(tmp_path / "b", {"train": {"a": 5}})
    (other / "test").write_text("x")
    refused(other, "test must be a folder, got a file")
    (other / "test").unlink()
    (other / "test").mkdir()
    refused(other, "test must hold folders of images, one a class, got none")


@pytest.mark.parametrize("place", ["train/cat/0.png", "train/cat", "train"])
def test_links_are_followed_inside_the_folder_only(tmp_path, place):
    """House rule: a link may not lead out of the folder, at any depth; inside it may."""
    outside, _ = folder(tmp_path / "outside")
    path, _ = folder(tmp_path / "inside")
    whole = _datasets.images(path)
    moved = path / "elsewhere"
    (path / place).rename(moved)
    (path / place).symlink_to(outside / place)
    refused(path, f"{place} is a link that leads out of")
    (path / place).unlink()
    (path / place).symlink_to(moved)
    found = _datasets.images(path)
    np.testing.assert_array_equal(found.x_train, whole.x_train)
    assert found.sha256 == whole.sha256
    (path / place).unlink()
    (path / place).symlink_to(path / place)
    with pytest.raises(ValueError, match=str(path)):
        _datasets.images(path)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def test_bits_that_would_be_lost_are_refused():
    """Closed form: Pillow reads 16-bit colours as their upper 8 bits, without a word."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    rows = zlib.compress(b"\0" + bytes(range(12)))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "RGB"
    with pytest.raises(ValueError, match="a.png must be .* of 8 bits .* got mode RGB of 16 bits"):
        _png.png_pixels("a.png", content)
    huge = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="a.png cannot be read: Image size .100000000 pixels."):
        _png.png_pixels("a.png", content.replace(head, huge))


@pytest.mark.parametrize("level", [0, 9])
def test_damaged_images_are_never_read_wrong(level):
    """Invariance: with a bit flipped or cut anywhere, refused by name or the very same pixels."""
    rng = np.random.default_rng(level)
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    content = png(pixels, compress_level=level)
    refusals = []
    damages = [content[:cut] for cut in rng.integers(0, len(content) - 12, 200)]
    for place in rng.integers(0, len(content), 400):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        damages.append(bytes(flipped))
    for damaged in damages:
        try:
            np.testing.assert_array_equal(_png.png_pixels("a.png", damaged), pixels)
        except ValueError as refusal:
            refusals.append(str(refusal))
    # Four bytes of 800, the checksum of the last and empty piece, do not matter.
    assert len(refusals) >= 590
    assert all(said.startswith("a.png") and "\n" not in said for said in refusals)
