"""The binary version of CIFAR-10: folders, archives, and what becomes of damaged ones."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from experiments import _cifar, _datasets

NAMES = [f"data_batch_{number}.bin" for number in (1, 2, 3, 4, 5)] + ["test_batch.bin"]
FOLDER = "cifar-10-batches-bin"


def batches(seed=0, count=2):
    """Six files of random images, written byte by byte; their pixels [n h w c] and labels."""
    rng = np.random.default_rng(seed)
    files, pixels, labels = {}, [], []
    for name in NAMES:
        content = bytearray()
        for _ in range(count):
            picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            label = int(rng.integers(10))
            content.append(label)
            for colour in range(3):
                for row in range(32):
                    content += bytes(int(picture[row, column, colour]) for column in range(32))
            pixels.append(picture)
            labels.append(label)
        files[name] = bytes(content)
    return files, np.array(pixels), np.array(labels)


MADE = batches()


def folder(path, files):
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        _datasets.images(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_folders_and_archives_hold_the_same(tmp_path):
    """Numpy loop: each pixel and label where it was written, from every form of the set."""
    files, pixels, labels = MADE
    inner = folder(tmp_path / "set" / FOLDER, {**files, "batches.meta.txt": b"airplane\n"})
    members = [(f"{FOLDER}/{name}", files[name]) for name in reversed(NAMES)]
    packed = archive(tmp_path / "cifar-10-binary.tar.gz", [*members, (f"{FOLDER}/a.html", b"x")])
    plain = archive(tmp_path / "cifar.tar", members, "w")
    digest = hashlib.sha256()
    for name in NAMES:
        digest.update(name.encode() + b"\0" + b"6146\0" + files[name])
    for path in (inner, inner.parent, packed, plain):
        found = _datasets.images(path)
        np.testing.assert_array_equal(found.x_train, np.float32(pixels[:10]) / 255)
        np.testing.assert_array_equal(found.x_test, np.float32(pixels[10:]) / 255)
        assert found.y_train.tolist() == labels[:10].tolist()
        assert found.y_test.tolist() == labels[10:].tolist()
        assert (found.x_train.dtype, found.y_train.dtype) == (np.float32, np.int32)
        assert found.x_train.flags.c_contiguous
        assert found.sha256 == digest.hexdigest()
        assert found.name == (
            "CIFAR-10, binary version (10 training, 2 test images; the published set has 50,000 "
            "and 10,000)"
        )
    assert set(tmp_path.rglob("*.bin")) == set(inner.glob("*.bin"))


def test_the_published_number_of_images_is_named_as_such(tmp_path, monkeypatch):
    """Closed form: with all images there is nothing to add."""
    monkeypatch.setattr(_cifar, "PUBLISHED", (10, 2))
    found = _cifar.cifar10_images(folder(tmp_path / FOLDER, MADE[0]))
    assert found.name == "CIFAR-10, binary version (10 training, 2 test images)"


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_named(tmp_path, name):
    """House rule: a set with a gap is refused as a whole."""
    files = {key: content for key, content in MADE[0].items() if key != name}
    said = f"{name} is missing; the binary version of CIFAR-10 has data_batch_1.bin to data_batch_5"
    refused(folder(tmp_path / FOLDER, files), said)
    refused(archive(tmp_path / "a.tar.gz", [(f"x/{key}", files[key]) for key in files]), said)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must hold records of 3,073 bytes, got 0 bytes"),
        (b"\1" * 3072, "must hold records of 3,073 bytes, got 3,072 bytes"),
        (b"\1" * 3074 * 2, "must hold records of 3,073 bytes, got 6,148 bytes"),
        (b"\1" * 3073 + b"\x0a" * 3073, "labels must be 0 to 9, got 10 in record 2"),
        (b"\xff" * 3073, "labels must be 0 to 9, got 255 in record 1"),
    ],
    ids=["empty", "short", "CIFAR-100", "label 10", "label 255"],
)
def test_bad_files_are_named(tmp_path, content, sentence):
    """House rule: one sentence that names the file, the same for a folder and an archive."""
    files = MADE[0] | {"data_batch_4.bin": content}
    refused(folder(tmp_path / FOLDER, files), f"data_batch_4[.]bin.* {sentence}")
    packed = archive(tmp_path / "a.tar", list(files.items()), "w")
    refused(packed, f"data_batch_4[.]bin.* {sentence}")


def test_the_python_version_is_named_and_never_loaded(tmp_path):
    """House rule: pickles can run programs, and are not opened."""
    pickled = {name[:-4]: b"cos\nsystem\n(S'false'\ntR." for name in NAMES}
    inner = folder(tmp_path / "cifar-10-batches-py", pickled)
    for path in (inner, tmp_path):
        refused(path, "its Python version is pickles and is never loaded")
    packed = archive(tmp_path / "cifar-10-python.tar.gz", list(pickled.items()))
    refused(packed, "its Python version is pickles and is never loaded")


def test_archives_that_lead_out_are_refused(tmp_path):
    """House rule: no member may lie outside; nothing is written, whatever the archive holds."""
    files = MADE[0]
    inside = tmp_path / "data"
    inside.mkdir()
    for name in (f"../{FOLDER}/test_batch.bin", "/data_batch_1.bin", "..\\data_batch_1.bin"):
        path = archive(inside / "a.tar.gz", [*files.items(), (name, b"x")])
        assert repr(name) in refused(path, "leads out of the archive")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(inside / "a.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo("test_batch.bin")
            member.type, member.linkname = kind, "../secret.bin"
            tar.addfile(member)
        refused(inside / "a.tar.gz", "the member 'test_batch.bin' is a link and no batch")
    twice = archive(inside / "a.tar.gz", [*files.items(), ("y/test_batch.bin", b"")])
    refused(twice, "test_batch.bin is in the archive twice")
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "a.tar.gz"]


def test_links_are_followed_inside_the_folder_only(tmp_path):
    """House rule: a link that leads out is named, also when the folder itself is one."""
    files, pixels, _ = MADE
    outside = folder(tmp_path / "outside", files)
    inner = folder(tmp_path / "set" / FOLDER, files)
    batch = inner / "data_batch_2.bin"
    batch.unlink()
    batch.symlink_to(outside / batch.name)
    refused(inner, "data_batch_2.bin is a link that leads out of")
    batch.unlink()
    batch.symlink_to("nowhere.bin")
    refused(inner, "data_batch_2.bin must be a file, got a pipe or a broken link")
    batch.unlink()
    batch.mkdir()
    refused(inner, "data_batch_2.bin must be a file, got a folder")
    batch.rmdir()
    batch.symlink_to("data_batch_1.bin")
    found = _datasets.images(inner).x_train
    np.testing.assert_array_equal(found[2:4], np.float32(pixels[:2]) / 255)
    other = tmp_path / "other"
    other.mkdir()
    (other / FOLDER).symlink_to(outside)
    refused(other, f"{FOLDER} is a link that leads out of")
    # What the user names is the user's choice, a link or not.
    (tmp_path / "link").symlink_to(outside)
    assert len(_datasets.images(tmp_path / "link").x_train) == 10


def damaged(content, rng, cuts, flips):
    """Copies that are cut anywhere, or have one bit flipped; the flipped place, or None."""
    for cut in rng.integers(0, len(content), cuts):
        yield content[:cut], None
    for place in rng.integers(0, len(content), flips):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        yield bytes(flipped), int(place)


def reading(path):
    """The images at a path, or the sentence that refuses them."""
    try:
        return _datasets.images(path), ""
    except ValueError as refusal:
        return None, str(refusal)


def test_damaged_files_are_refused_or_differ_where_they_were_damaged(tmp_path):
    """Numpy loop: a raw record has no checksum, so the flipped bit alone may differ."""
    files, pixels, labels = MADE
    path = folder(tmp_path / FOLDER, files)
    whole, refusals = _datasets.images(path), []
    for content, place in damaged(files["data_batch_1.bin"], np.random.default_rng(1), 40, 80):
        (path / "data_batch_1.bin").write_bytes(content)
        found, refusal = reading(path)
        if found is None:
            refusals.append(refusal)
            continue
        assert found.sha256 != whole.sha256
        assert place is not None
        changed = np.argwhere(found.x_train != np.float32(pixels[:10]) / 255)
        record, byte = divmod(place, 3073)
        colour, pixel = divmod(byte - 1, 1024)
        expected = [] if byte == 0 else [[record, *divmod(pixel, 32), colour]]
        assert changed.tolist() == expected
        assert (found.y_train != labels[:10]).sum() == (byte == 0)
    assert len(refusals) >= 40
    assert all("data_batch_1.bin" in refusal for refusal in refusals)


def test_files_cut_between_two_records_are_smaller_sets(tmp_path):
    """Closed form: what no length or checksum shows is said in the name."""
    path = folder(tmp_path / FOLDER, MADE[0])
    (path / "data_batch_1.bin").write_bytes(MADE[0]["data_batch_1.bin"][:3073])
    assert "9 training, 2 test images; the published set has 50,000" in _datasets.images(path).name


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_damaged_archives_are_never_read_wrong(tmp_path, mode):
    """Invariance: refused by name, or as it was but for the flipped bit of a plain record."""
    path = archive(tmp_path / "a.tar.gz", [(f"x/{name}", MADE[0][name]) for name in NAMES], mode)
    whole, content, refusals = _datasets.images(path), path.read_bytes(), []
    end = len(content) if mode == "w:gz" else 6 * (512 + 13 * 512)
    rng = np.random.default_rng(2)
    cases = list(damaged(content[:end], rng, 40, 80))
    # The heads of a plain archive are small beside its records.
    heads = content[: 512 if mode == "w" else 40]
    cases += [(head + content[len(heads) :], len(head)) for head, _ in damaged(heads, rng, 0, 60)]
    for changed, place in cases:
        path.write_bytes(changed if place is None else changed + content[len(changed) :])
        found, refusal = reading(path)
        if found is None:
            refusals.append(refusal)
            continue
        assert place is not None
        changes = np.sum(found.x_train != whole.x_train) + np.sum(found.x_test != whole.x_test)
        changes += np.sum(found.y_train != whole.y_train) + np.sum(found.y_test != whole.y_test)
        assert changes <= (mode == "w")
        assert (found.sha256 == whole.sha256) == (changes == 0)
    assert len(refusals) >= (160 if mode == "w:gz" else 80)
    assert all(str(path) in said and "\n" not in said for said in refusals)
