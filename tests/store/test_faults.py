"""Faults of the disk at every single file operation of a save, one after the other."""

import errno
import io
import itertools
import os

import numpy as np
import pytest

from meanfield import store
from meanfield.store import provenance

CALLS = ("mkdir", "open", "fsync", "replace", "unlink", "scandir", "ftruncate", "pwrite")


class Disk:
    """A disk that fails at one operation, or at that and all that follow."""

    def __init__(self, code, *, lasting):
        """A disk that fails with ``code``; at no operation yet."""
        self.code, self.lasting = code, lasting
        self.count, self.at, self.failures = 0, None, 0

    def operation(self):
        self.count += 1
        if self.at is not None and (
            self.count == self.at or (self.lasting and self.count >= self.at)
        ):
            self.failures += 1
            raise OSError(self.code, os.strerror(self.code))

    def fails_at(self, at):
        self.count, self.at, self.failures = 0, at, 0

    def watched(self, call):
        def function(*args, **options):
            self.operation()
            return call(*args, **options)

        return function


def mounted(disk, monkeypatch):
    """Puts ``disk`` under every call by which a save reaches its files."""
    opened = io.open

    class File(io.FileIO):
        def write(self, content):
            disk.operation()
            return super().write(content)

    def open_file(file, mode="r", *args, **options):
        disk.operation()
        if not {"w", "x"} & set(mode):
            return opened(file, mode, *args, **options)
        # As `open` builds it, but with writes that can fail.
        raw = File(file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

    for name in CALLS:
        monkeypatch.setattr(os, name, disk.watched(getattr(os, name)))
    monkeypatch.setattr(io, "open", open_file)


def saved(out, value):
    with store.open_run(out, experiment="toy") as draft:
        store.save_record(draft, {"x": np.full(3, value)})
        with store.replacing(draft.directory / "report.md") as page:
            page.write_text("# A toy", encoding="utf-8")


def failure(save):
    """The one line that says why a save failed, or None."""
    try:
        save()
    except (OSError, ValueError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_fails(tmp_path, monkeypatch, code, lasting):
    """Invariance: the old run stands, the new is whole or absent, and the error says why."""
    device = provenance.device()
    # They read files too, but none of the run.
    for name, value in (("versions", {}), ("device", device), ("commit", None)):
        monkeypatch.setattr(provenance, name, lambda value=value: value)
    saved(tmp_path / "old", 1.0)
    disk = Disk(code, lasting=lasting)
    refused = 0
    for at in itertools.count(1):
        out = tmp_path / f"new {at}"
        with monkeypatch.context() as patch:
            mounted(disk, patch)
            disk.fails_at(at)
            reason = failure(lambda out=out: saved(out, 2.0))
        if not disk.failures:
            break
        refused += reason is not None
        assert reason is None or (os.strerror(code) in reason and "\n" not in reason)
        np.testing.assert_array_equal(store.load_run(tmp_path / "old").arrays["x"], np.ones(3))
        # Without an error, say where a second try went well, the run is there.
        if reason is None or out.exists():
            np.testing.assert_array_equal(store.load_run(out).arrays["x"], np.full(3, 2.0))
        else:
            # What a failure leaves behind is in nobody's way.
            saved(out, 3.0)
    assert refused > 35
