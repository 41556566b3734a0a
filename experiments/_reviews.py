"""Single reviews: a line of a .jsonl or .tsv file, checked and named by its place.

    .jsonl    {"text": "...", "label": 0 or 1}
    .tsv      label, tab, text; a first line that begins with "label" is a heading

One trap: a text is kept as the bytes it has in UTF-8. What cannot be decoded is refused, for a
mended byte would be another token.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
LAYOUTS = "an aclImdb folder or .tar.gz, or .jsonl, .jsonl.gz or .tsv files"


class Review(NamedTuple):
    """One review, and where it stands, for a message."""

    place: str
    text: bytes
    label: int


def file_reviews(path: Path, /) -> list[Review]:
    """Reviews of a .jsonl, .jsonl.gz or .tsv file, one a line.

    Args:
        path: The file.

    Raises:
        ValueError: If it is another file, or a line is not what is said here.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz", ".tsv")):
        raise ValueError(f"data must be {LAYOUTS}, got {path}")
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is cut short or damaged: {error}; copy it again") from None
    lines = content.split(b"\n")
    if lines[-1].strip() == b"":
        lines.pop()
    read = _from_tsv if path.name.endswith(".tsv") else _from_json
    heading = path.name.endswith(".tsv") and lines and lines[0].split(b"\t")[0] == b"label"
    return [
        read(f"{path}, line {number}", line)
        for number, line in enumerate(lines, 1)
        if not (heading and number == 1)
    ]


def _from_json(place: str, line: bytes) -> Review:
    try:
        row: Any = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: {_undecodable(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} must be a JSON object, got {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ValueError(f'{place} must be a JSON object {{"text": "...", "label": 0 or 1}}')
    label = row.get("label")
    if isinstance(label, bool) or label not in (0, 1):
        raise ValueError(f"{place}: a label must be 0 or 1, got {label!r}")
    try:
        return review(place, row["text"].encode(), int(label))
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: the text is no UTF-8: {error.reason}; mend it") from None


def _from_tsv(place: str, line: bytes) -> Review:
    label, tab, text = line.rstrip(b"\r").partition(b"\t")
    if not tab:
        raise ValueError(f"{place} must be a label, a tab and a text, got no tab")
    word = label.decode("utf-8", "backslashreplace").strip()
    if word not in LABELS:
        raise ValueError(f"{place}: a label must be 0 or 1, got {word[:40]!r}")
    return review(place, text, LABELS[word])


def review(place: str, text: bytes, label: int, /) -> Review:
    """A review, if its text is UTF-8 and not empty.

    Args:
        place: Where it stands, for a message.
        text: Its bytes.
        label: Its label.

    Raises:
        ValueError: Otherwise.
    """
    try:
        empty = not text.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: {_undecodable(error)}") from None
    if empty:
        raise ValueError(f"{place}: the review is empty; leave it out")
    return Review(place, text, label)


def _undecodable(error: UnicodeDecodeError) -> str:
    return (
        f"byte {error.start + 1} of the review, 0x{error.object[error.start]:02x}, is no UTF-8; "
        "convert the file to UTF-8"
    )
