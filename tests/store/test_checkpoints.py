import errno
import io
import json
import os
import warnings

import numpy as np
import pytest

from meanfield import store
from meanfield.store import checkpoints, records


def state(step):
    return {"step": np.int64(step), "carry": {"x": np.linspace(0, 1, 40) * step}}


def loaded(reader):
    found = reader.load()
    assert found is not None
    return found


def steps(directory):
    """Steps of the checkpoints that a new reader finds good, each the newest in its turn."""
    found = []
    for path in sorted(directory.glob("checkpoint-*.mfc")):
        alone = directory / "alone"
        alone.mkdir()
        (alone / path.name).write_bytes(path.read_bytes())
        try:
            found.append(int(loaded(store.Checkpoints(alone))["step"]))
        except ValueError:
            found.append(None)
        (alone / path.name).unlink()
        alone.rmdir()
    return found


def filled(directory, last=3):
    written = store.Checkpoints(directory)
    for step in range(1, last + 1):
        written.save(state(step))
    return written


def test_round_trip(tmp_path):
    """Invariance: arrays come back as they went, whatever their type; an empty place holds none."""
    arrays = {
        "bits": np.array([np.nan, -0.0, 5e-324]),
        "words": np.array(["ä", ""]),
        "none": np.zeros((0, 3), np.int32),
        "branch": {"0": np.array(True), "1": np.float32(0.1)},
    }
    empty = store.Checkpoints(tmp_path / "deep" / "er")
    assert empty.load() is None
    empty.save(arrays)
    found = loaded(store.Checkpoints(tmp_path / "deep" / "er"))
    assert found["bits"].tobytes() == arrays["bits"].tobytes()
    np.testing.assert_array_equal(found["words"], arrays["words"])
    assert found["none"].shape == (0, 3)
    assert (found["branch"]["0"], found["branch"]["1"]) == (True, np.float32(0.1))


def test_last_two_are_kept(tmp_path):
    """Closed form: after any number of saves there are the last one and the one before."""
    filled(tmp_path, 5)
    assert steps(tmp_path) == [4, 5]
    assert len(list(tmp_path.iterdir())) == 2


def corrupted(content, generator):
    """The content after one random fault, and never as it was."""
    where = int(generator.integers(len(content)))
    return [
        content[:where],
        content[:where]
        + bytes([content[where] ^ (1 << generator.integers(8))])
        + content[where + 1 :],
        content + generator.bytes(1 + where % 50),
        content[where:] or b"?",
        generator.bytes(where),
    ][generator.integers(5)]


@pytest.mark.stress
def test_corruption_is_found(tmp_path):
    """Theorem: no change escapes sha256; each is named once and the one before it is used."""
    filled(tmp_path)
    newest = max(tmp_path.glob("checkpoint-*.mfc"))
    whole, generator = newest.read_bytes(), np.random.default_rng(0)
    count = 1000 if "MEANFIELD_STRESS" in os.environ else 60
    reader = store.Checkpoints(tmp_path)
    for _ in range(count):
        changed = corrupted(whole, generator)
        if changed == whole:
            continue
        newest.write_bytes(changed)
        with pytest.warns(UserWarning, match=rf"^{newest.name} .*, saved before it, is used$"):
            assert loaded(reader)["step"] == 2


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"meanfield checkpoint": 2}, "has format 2, this version reads 1: use the version that"),
        ({"bytes": 10**9}, "is cut short: expected 1000000000 bytes, got"),
        ({"sha256": "0" * 64}, "was changed: expected sha256 0{64}, got"),
        (None, "is no checkpoint, or its first line was changed"),
    ],
)
def test_bad_ones_are_named(tmp_path, header, message):
    """Closed form: what is wrong was planted; without a good one the sentence is an error."""
    filled(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    line, content = path.read_bytes().split(b"\n", 1)
    planted = b"" if header is None else json.dumps(json.loads(line) | header).encode() + b"\n"
    path.write_bytes(planted + content)
    with pytest.raises(ValueError, match=rf"^none of the checkpoints in .*{message}.* begin anew$"):
        store.Checkpoints(tmp_path).load()


def test_pickles_are_refused(tmp_path):
    """Closed form: an object array, which numpy stores as a pickle, is never read."""
    box = io.BytesIO()
    np.savez(box, origin=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        records.read_npz(io.BytesIO(box.getvalue()))
    with pytest.raises(ValueError, match="must hold numbers"):
        store.Checkpoints(tmp_path).save({"x": np.array([{}], dtype=object)})
    assert not list(tmp_path.iterdir())


def test_other_code_is_warned_of(tmp_path, monkeypatch):
    """Closed form: the version that was planted is named, and the checkpoint is used."""
    filled(tmp_path)
    monkeypatch.setattr(checkpoints, "_origin", lambda: {"python": "3.99.0"})
    with pytest.warns(UserWarning, match=r"saved by other code .*python 3\..*, now 3\.99\.0"):
        assert loaded(store.Checkpoints(tmp_path))["step"] == 3


OPERATIONS = ["listdir", "open", "fsync", "close", "replace", "unlink", "io.open", "write"]


class Torn(io.FileIO):
    """A file on a disk that fills up: half of what is written arrives."""

    def write(self, content):
        super().write(bytes(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fault(monkeypatch, name, number):
    """Lets the given call of an operation fail, as on a full disk."""
    calls = []
    if name == "write":
        opened = io.open

        def torn(file, mode="r", *rest, **options):
            return Torn(file, "w") if "w" in mode else opened(file, mode, *rest, **options)

        monkeypatch.setattr(io, "open", torn)
        return
    module = io if name == "io.open" else os
    name = name.removeprefix("io.")
    done = getattr(module, name)

    def failing(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return done(*arguments, **options)

    monkeypatch.setattr(module, name, failing)


@pytest.mark.parametrize("name", OPERATIONS)
def test_fault_in_a_save(tmp_path, name):
    """Theorem: whichever operation of a save fails, a good checkpoint is there, and says so."""
    failed = 0
    for number in range(1, 2 if name == "write" else 6):
        directory = tmp_path / str(number)
        directory.mkdir()
        written, raised = filled(directory), None
        with pytest.MonkeyPatch.context() as patch:
            fault(patch, name, number)
            try:
                written.save(state(4))
            except OSError as error:
                raised = error
        if raised is not None:
            failed += 1
            assert "No space left on device); those saved before are intact" in str(raised)
            assert raised.errno == errno.ENOSPC
            good = steps(directory)
            assert 3 in good
            assert set(good) <= {2, 3, 4}
        # And the next save mends it all.
        written.save(state(5))
        assert steps(directory)[-1] == 5
    assert failed, "the operation took no part in a save"


def test_read_only(tmp_path, monkeypatch):
    """Closed form: a directory that cannot be written is named; what is in it can be read."""
    written = filled(tmp_path)

    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "unlink", refused)
    opened = io.open
    monkeypatch.setattr(
        io,
        "open",
        lambda file, mode="r", *a, **k: (refused if "w" in mode else opened)(file, mode, *a, **k),
    )
    with pytest.raises(PermissionError, match="no checkpoint could be written to .*Permission den"):
        written.save(state(4))
    (tmp_path / ".checkpoint-00000004.mfc.partial-00").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loaded(store.Checkpoints(tmp_path))["step"] == 3


def test_half_written_is_swept(tmp_path):
    """Closed form: what a kill left beside the checkpoints is gone after the next load."""
    filled(tmp_path)
    (tmp_path / ".checkpoint-00000004.mfc.partial-0123abcd").write_bytes(b"half")
    (tmp_path / "notes.txt").touch()
    store.Checkpoints(tmp_path).load()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00000002.mfc", "checkpoint-00000003.mfc", "notes.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seconds": 0.0}, "seconds must be a finite number > 0"), ({"steps": 0}, "steps must be an")],
)
def test_refused(tmp_path, options, message):
    """Closed form: got and expected, before anything is computed."""
    with pytest.raises(ValueError, match=message):
        store.Checkpoints(tmp_path, **options)
