"""Labelled reviews as bytes: a user's own in one of three layouts, or synthetic ones.

    aclImdb   a folder, or its .tar.gz: {train,test}/{pos,neg}/*.txt
    .jsonl    a file, or a folder of *train*.jsonl[.gz] and *test*.jsonl[.gz]: {"text", "label"}
    .tsv      a file, or a folder of *train*.tsv and *test*.tsv: label, tab, text

A byte b becomes the id b + 1; 0 is padding. Labels are 1 (positive) and 0. Reviews longer than
``length`` bytes are cut, as in the Long Range Arena, or refused. Of a single file every fifth
review of each label is set aside as a test part.

One trap: a folder with one unreadable review is refused as a whole; a silent gap would change the
data without changing their name.

References:
    Maas et al. 2011, *Learning word vectors for sentiment analysis* (aclImdb);
    Tay et al. 2021, arXiv 2011.04006 (reviews as bytes).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from experiments import _archives, _inside
from experiments._reviews import LAYOUTS, Review, file_reviews, review
from meanfield import checks

PARTS = ("train", "test")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy")


class Texts(NamedTuple):
    """Labelled reviews in a training and a test part, and where they come from.

    Attributes:
        x_train: Ids of training reviews, padded with 0.
        y_train: Their labels.
        x_test: Ids of test reviews.
        y_test: Their labels.
        name: What they are, in the words of a report.
        checksums: The sha256 of each file; for aclImdb, one of all names and reviews.
    """

    x_train: Int[np.ndarray, "n t"]
    y_train: Int[np.ndarray, " n"]
    x_test: Int[np.ndarray, "k t"]
    y_test: Int[np.ndarray, " k"]
    name: str
    checksums: dict[str, str]


def reviews(path: Path, /, *, length: int, longer: str = "cut") -> Texts:
    """The reviews in a user's file or folder.

    Args:
        path: The file or folder. Nothing in it is executed: pickles are refused.
        length: Ids of a review, its positions in the model.
        longer: What becomes of longer reviews: ``"cut"``, or ``"refuse"`` the data.

    Raises:
        ValueError: If anything in it is not what is said here.

    >>> reviews(Path("nowhere"), length=8)
    Traceback (most recent call last):
    ValueError: data must be an aclImdb folder ... files, got nowhere, which does not exist
    """
    checks.count("length", length)
    checks.choice("longer", longer, ("cut", "refuse"))
    path = Path(path)
    try:
        parts, checksums = _parts(path)
    except OSError as error:
        said = error.strerror or error
        raise ValueError(f"{error.filename or path} cannot be read: {said}") from None
    if "test" not in parts:
        by_label = [[one for one in parts["train"] if one.label == label] for label in (0, 1)]
        parts["test"] = [one for rows in by_label for one in rows[4::5]]
        aside = {one.place for one in parts["test"]}
        parts["train"] = [one for one in parts["train"] if one.place not in aside]
    for part in PARTS:
        if len({one.label for one in parts[part]}) < 2:
            raise ValueError(f"{path}: the {part} part must hold reviews of both labels, 0 and 1")
    train, test = (_arrays(parts[part], length, longer) for part in PARTS)
    name = f"reviews in {path.name} ({len(train[1]):,} training, {len(test[1]):,} test reviews)"
    return Texts(*train, *test, name, checksums)


def ids(text: bytes, length: int, /) -> Int[np.ndarray, " t"]:
    """The first bytes of a text as ids, padded with 0.

    Args:
        text: The text.
        length: Number of ids.

    >>> ids(b"ab", 3).tolist()
    [98, 99, 0]
    """
    row = np.zeros(length, np.int32)
    found = np.frombuffer(text[:length], np.uint8)
    row[: len(found)] = found.astype(np.int32) + 1
    return row


def some(texts: Texts, /, *, reviews: int, test_reviews: int) -> Texts:
    """At most so many of the reviews, drawn at random once and for all.

    Args:
        texts: All reviews.
        reviews: Training reviews at most.
        test_reviews: Test reviews at most.

    >>> some(Texts(*[np.arange(4)] * 4, "four", {}), reviews=2, test_reviews=9).y_train.shape
    (2,)
    """
    rng = np.random.default_rng(0)
    train = rng.permutation(len(texts.y_train))[:reviews]
    test = rng.permutation(len(texts.y_test))[:test_reviews]
    return texts._replace(
        x_train=texts.x_train[train],
        y_train=texts.y_train[train],
        x_test=texts.x_test[test],
        y_test=texts.y_test[test],
    )


def _arrays(part: list[Review], length: int, longer: str) -> tuple[np.ndarray, np.ndarray]:
    for one in part:
        if longer == "refuse" and len(one.text) > length:
            raise ValueError(
                f"{one.place}: a review must have at most {length} bytes, one per position of "
                f"the model, got {len(one.text)}; raise length or let longer reviews be cut"
            )
    x = np.stack([ids(one.text, length) for one in part])
    return x, np.array([one.label for one in part], np.int32)


def _parts(path: Path) -> tuple[dict[str, list[Review]], dict[str, str]]:
    if path.name.lower().endswith(PICKLES):
        raise ValueError(
            f"{path} is a pickle or may hold one, and a pickle can run programs: it is never "
            'loaded; write {"text": ..., "label": 0 or 1} on each line of a .jsonl file instead'
        )
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ValueError(f"data must be {LAYOUTS}, got {path}, which does not exist")
    if path.name.endswith(_archives.SUFFIXES):
        return _labelled_files(path, _archives.members(path, ".txt", kind="review"))
    return {"train": file_reviews(path)}, {path.name: _sha256(path.read_bytes())}


def _folder(path: Path) -> tuple[dict[str, list[Review]], dict[str, str]]:
    for root in (path, path / "aclImdb"):
        if (root / "train").is_dir():
            for folder in (each for part in PARTS for each in (root / part).glob("*/")):
                # What leads out is named; a walk would pass such a folder by.
                _inside.listed(root, folder.relative_to(root).as_posix())
            files = (file for part in PARTS for file in sorted((root / part).rglob("*.txt")))
            names = (file.relative_to(root).as_posix() for file in files)
            return _labelled_files(
                path,
                ((name, _inside.content(root, name, most=_archives.LARGEST)) for name in names),
            )
    found = {
        part: sorted(
            file
            for file in path.iterdir()
            if part in file.name and file.name.endswith((".jsonl", ".jsonl.gz", ".tsv"))
        )
        for part in PARTS
    }
    for part, files in found.items():
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise ValueError(
                f"{path}: data must be {LAYOUTS}; of files with {part!r} in their name one is "
                f"needed, got {names}"
            )
    checksums = {files[0].name: _sha256(files[0].read_bytes()) for files in found.values()}
    return {part: file_reviews(files[0]) for part, files in found.items()}, checksums


def _labelled_files(
    path: Path, files: Iterator[tuple[str, bytes]]
) -> tuple[dict[str, list[Review]], dict[str, str]]:
    """Reviews of {train,test}/{pos,neg}/*.txt; those without a label, in unsup, are left out."""
    labels = {"pos": 1, "neg": 0}
    parts: dict[str, list[Review]] = {part: [] for part in PARTS}
    digest = hashlib.sha256()
    for name, content in files:
        steps = PurePosixPath(name).parts
        part = next((step for step in steps[:-1] if step in PARTS), "")
        inside = steps[steps.index(part) + 1 :] if part else ()
        # Lists of addresses lie beside the folders of reviews.
        if len(inside) < 2 or inside[0] == "unsup":
            continue
        place = f"{path}: {name}"
        if inside[0] not in labels:
            raise ValueError(f"{place}: a label must be pos or neg, got {inside[0]!r}")
        if len(inside) > 2:
            raise ValueError(
                f"{place}: a review must lie in {part}/{inside[0]} itself, got a folder "
                f"{inside[1]!r} in it; move its reviews up or take it away"
            )
        parts[part].append(review(place, content, labels[inside[0]]))
        digest.update(f"{part}/{'/'.join(inside)}\0{len(content)}\0".encode() + content)
    return parts, {path.name: digest.hexdigest()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
