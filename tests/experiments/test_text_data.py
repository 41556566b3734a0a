import gzip
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from experiments import _text_data

GOOD = [("A fine film, très bien.", 1), ("Dull.", 0), ("It was fine.", 1), ("Bad\tand long.", 0)]


def lines(rows=GOOD):
    return "".join(json.dumps({"id": 3, "text": t, "label": y}) + "\n" for t, y in rows).encode()


def folder(root, rows=GOOD, name="{index}_7.txt"):
    for part in ("train", "test"):
        for index, (text, label) in enumerate(rows):
            place = root / part / ("pos" if label else "neg")
            place.mkdir(parents=True, exist_ok=True)
            (place / name.format(index=index)).write_bytes(text.encode())
    return root


def two_files(root, ending, write):
    for part in ("train", "test"):
        (root / f"x_{part}_5{ending}").write_bytes(write)
    (root / f"x_val_5{ending}").write_bytes(b"never read")
    return root


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def layouts(tmp_path):
    """The same reviews in every layout."""
    tsv = "label\ttext\n" + "".join(f"{float(y)}\t{t}\r\n" for t, y in GOOD)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    yield two_files(tmp_path / "a", ".jsonl", lines())
    yield two_files(tmp_path / "b", ".jsonl.gz", gzip.compress(lines()))
    yield two_files(tmp_path / "c", ".tsv", tsv.encode())
    yield folder(tmp_path / "d")
    yield folder(tmp_path / "e" / "aclImdb").parent
    files = list((tmp_path / "d").rglob("*.txt"))
    members = [(f"aclImdb/{f.relative_to(tmp_path / 'd')}", f.read_bytes()) for f in files]
    yield archive(tmp_path / "f.tar.gz", [*members, ("aclImdb/train/unsup/0_0.txt", b"?")])


def test_every_layout_gives_the_same_reviews(tmp_path):
    """Closed form: bytes plus one, padded with 0 and cut, with their labels."""
    text, label = GOOD[0]
    raw = text.encode()
    expected = {(tuple([*(b + 1 for b in t.encode()[:16])] + [0] * (16 - len(t.encode()))), y)
                for t, y in GOOD}  # fmt: skip
    for path in layouts(tmp_path):
        found = _text_data.reviews(path, length=16)
        for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
            assert {(tuple(row.tolist()), int(z)) for row, z in zip(x, y, strict=True)} == expected
        assert "(4 training, 4 test reviews)" in found.name
        assert found.checksums
    assert len(raw) > 16
    assert label == 1


def test_one_file_sets_a_fifth_aside(tmp_path):
    """Closed form: every fifth review of each label is a test review; the file's checksum."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(lines([(f"review {i}", i % 2) for i in range(20)]))
    found = _text_data.reviews(path, length=12)
    assert bytes((found.x_test[2][:8] - 1).astype(np.uint8)) == b"review 9"
    assert (len(found.y_train), len(found.y_test)) == (16, 4)
    assert found.checksums == {"r.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}


def refused(path, message, **options):
    with pytest.raises(ValueError, match=message) as caught:
        _text_data.reviews(path, **{"length": 64, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x", "label": 2}', "line 2: a label must be 0 or 1, got 2"),
        (b'{"text": "x", "label": "pos"}', "line 2: a label must be 0 or 1, got 'pos'"),
        (b'{"text": "x", "label": true}', "line 2: a label must be 0 or 1, got True"),
        (b'{"text": "x"}', "line 2: a label must be 0 or 1, got None"),
        (b'{"text": " ", "label": 1}', "line 2: the review is empty"),
        (b'{"text": "\\ud800", "label": 1}', "line 2: the text is no UTF-8"),
        (b'{"text": "caf\xe9", "label": 1}', "line 2: byte 14 of the review, 0xe9, is no UTF-8"),
        (b"[1]", "line 2 must be a JSON object"),
        (b'{"text": "cut', "line 2 must be a JSON object, got "),
        (b"", "line 2 must be a JSON object, got "),
    ],
)
def test_bad_lines_of_json(tmp_path, line, message):
    """House rule: one sentence that names the file and the line; nothing is used."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"text": "x", "label": 0}\n' + line + b"\n" + lines())
    assert str(path) in refused(path, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"2\tgood", "line 2: a label must be 0 or 1, got '2'"),
        (b"\xff\tgood", r"line 2: a label must be 0 or 1, got '\\\\xff'"),
        (b"1 good", "line 2 must be a label, a tab and a text"),
        (b"1\t  ", "line 2: the review is empty"),
        (b"1\tcaf\xe9", "line 2: byte 4 of the review, 0xe9, is no UTF-8"),
    ],
)
def test_bad_lines_of_tsv(tmp_path, line, message):
    """House rule: one sentence that names the file and the line."""
    path = tmp_path / "r.tsv"
    path.write_bytes(b"0\tbad\n" + line + b"\n1\tgood\n")
    assert str(path) in refused(path, message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train/pos/9_9.txt", b"", "9_9.txt: the review is empty"),
        ("test/neg/9_9.txt", b"caf\xe9", "9_9.txt: byte 4 of the review, 0xe9"),
        ("train/odd/9_9.txt", b"x", "9_9.txt: a label must be pos or neg, got 'odd'"),
        ("train/pos/sub/9.txt", b"x", r"9.txt: a review must lie in train/pos itself, .* 'sub'"),
        ("train/sub/pos/9.txt", b"x", "9.txt: a label must be pos or neg, got 'sub'"),
    ],
)
def test_bad_files_of_a_folder(tmp_path, name, content, message):
    """House rule: one sentence that names the file, in a folder and in an archive."""
    root = folder(tmp_path / "acl")
    (root / name).parent.mkdir(exist_ok=True, parents=True)
    (root / name).write_bytes(content)
    refused(root, message)
    refused(archive(tmp_path / "acl.tar.gz", [(name, content)]), message)


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", ""])
def test_damaged_archives_are_refused(tmp_path, kind):
    """Invariance: cut anywhere or with a byte flipped, an archive is refused or is read as it was.

    Nothing is compressed much, so that most bytes of the file are bytes of a review.
    """
    rng = np.random.default_rng(0)
    texts = [rng.bytes(300).hex().encode() for _ in range(8)]
    names = [f"{part}/{label}/{i}.txt" for part in ("train", "test") for label in ("pos", "neg")
             for i in range(2)]  # fmt: skip
    path = archive(tmp_path / "a.tar.gz", list(zip(names, texts, strict=True)), f"w:{kind}")
    whole = _text_data.reviews(path, length=600)
    content = path.read_bytes()
    refusals = []
    # A tar file has a mark of its end, and then nothing but zeros.
    end = len(content) if kind else 8 * (512 + 1024) + 1024
    damages = [content[:cut] for cut in rng.integers(1, end - 10, 12)]
    damages += [content[:cut] for cut in (() if kind else range(1024, end - 1024, 512))]
    damages += [flipped(content, place) for place in rng.integers(0, len(content), 12)]
    for damaged in damages:
        path.write_bytes(damaged)
        try:
            found = _text_data.reviews(path, length=600)
        except ValueError as refusal:
            refusals.append(str(refusal))
            continue
        assert len(damaged) == len(content)
        # Only a tar file without compression has no checksum of what is in it.
        assert not kind or found.checksums == whole.checksums
    assert all(str(path) in refusal and "\n" not in refusal for refusal in refusals)
    assert len(refusals) >= (18 if kind else 12 + (end - 2048) // 512)


def flipped(content, place):
    damaged = bytearray(content)
    damaged[place] ^= 0xFF
    return bytes(damaged)


def test_damaged_streams_are_refused(tmp_path):
    """Invariance: a .jsonl.gz file is read as it was or refused by name, wherever it is damaged."""
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(lines([(f"{t} {i}", y) for i in range(9) for t, y in GOOD])))
    whole, content = _text_data.reviews(path, length=32), path.read_bytes()
    refusals = []
    for place in range(0, len(content), 5):
        for damaged in (content[:place], flipped(content, place)):
            path.write_bytes(damaged)
            try:
                found = _text_data.reviews(path, length=32)
            except ValueError as refusal:
                refusals.append(str(refusal))
            else:
                np.testing.assert_array_equal(found.x_train, whole.x_train)
    assert all("r.jsonl.gz" in refusal for refusal in refusals)
    assert len(refusals) > 0.8 * 2 * len(content) / 5


def test_links_are_no_reviews(tmp_path):
    """House rule: a link in an archive may lead anywhere; it is named and not followed."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("train/pos/0.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(member)
    refused(path, "the member 'train/pos/0.txt' is a link and no review")


@pytest.mark.parametrize("level", ["file", "pos", "train"])
def test_links_that_lead_out_of_a_folder(tmp_path, level):
    """House rule: a file outside the folder is no review, be it or a folder on the way the link."""
    inner = folder(tmp_path / "inner")
    file = sorted((inner / "train" / "pos").iterdir())[0]
    whole = {"file": file, "pos": file.parent, "train": inner / "train"}[level]
    whole.rename(tmp_path / "moved")
    whole.symlink_to(tmp_path / "moved")
    refused(inner, "is a link that leads out of")


def test_archives_that_are_cut_or_lead_out(tmp_path):
    """House rule: a damaged archive is refused as a whole, and so is a path out of it."""
    rng = np.random.default_rng(0)
    members = [(f"train/pos/{i}.txt", rng.bytes(900).hex().encode()) for i in range(9)]
    path = archive(tmp_path / "a.tar.gz", members)
    path.write_bytes(path.read_bytes()[:-4000])
    refused(path, "a.tar.gz is cut short or damaged")
    for name in ("../train/pos/0.txt", "/train/pos/0.txt", "train\\..\\pos.txt"):
        path = archive(tmp_path / "b.tar.gz", [*members[:2], (name, b"x")])
        assert repr(name) in refused(path, "leads out of the archive")
    whole = gzip.compress(lines([(t * 50, y) for t, y in GOOD]))
    (tmp_path / "c.jsonl.gz").write_bytes(whole[:-9])
    refused(tmp_path / "c.jsonl.gz", "c.jsonl.gz is cut short or damaged")
    (tmp_path / "d.jsonl.gz").write_bytes(b"no archive")
    refused(tmp_path / "d.jsonl.gz", "d.jsonl.gz is cut short or damaged")


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.npy"])
def test_pickles_are_never_loaded(tmp_path, name):
    """House rule: a pickle is named as one, with the way round it."""
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(tmp_path / name, r"is a pickle or may hold one, .* on each line of a .jsonl file")


def test_other_refusals(tmp_path):
    """House rule: no layout, one label only, reviews longer than the model's positions."""
    refused(tmp_path, r"of files with 'train' in their name one is needed, got none")
    refused(tmp_path / "none", "which does not exist")
    (tmp_path / "r.txt").write_text("x")
    refused(tmp_path / "r.txt", "data must be an aclImdb folder")
    path = tmp_path / "r.jsonl"
    path.write_bytes(lines([("x", 1)] * 9))
    refused(path, "the train part must hold reviews of both labels")
    path.write_bytes(lines([("xyz", 1), ("a" * 99, 0)] * 9))
    message = "r.jsonl, line 2: a review must have at most 64 bytes, .* got 99; raise length"
    refused(path, message, longer="refuse")
    refused(path, "longer must be one of cut, refuse, got 'crop'", longer="crop")
    refused(path, "length must be an integer >= 1, got 0", length=0)
