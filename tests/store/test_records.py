import io
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield.store.records import read_npz, write_npz


class Head(NamedTuple):
    query: np.ndarray
    value: np.ndarray


def written(tmp_path, arrays):
    write_npz(tmp_path / "record.npz", arrays)
    return read_npz(tmp_path / "record.npz")


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array([np.nan, np.inf, -0.0]),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["softmax", "linéaire"]),
        np.array(["2024-10-31"], dtype="datetime64[D]"),
        np.array([2**63], dtype=np.uint64),
    ],
    ids=lambda array: f"{array.dtype}",
)
def test_round_trip_is_exact(tmp_path, array):
    """Invariance: writing and reading changes no bit, no dtype and no shape."""
    (found,) = written(tmp_path, {"x": array}).values()
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_trees_become_nested_dicts(tmp_path):
    """Closed form: NamedTuples give their field names, tuples their places, lists are arrays."""
    head = Head(np.ones(2), jnp.arange(3.0))
    found = written(tmp_path, {"theta": (head, {}), "times": [0, 1], "file": 1.0, "a": {"b": 2}})
    assert set(found) == {"theta", "times", "file", "a"}
    np.testing.assert_array_equal(found["theta"]["0"]["query"], np.ones(2))
    np.testing.assert_array_equal(found["theta"]["0"]["value"], np.arange(3.0))
    np.testing.assert_array_equal(found["times"], [0, 1])
    assert found["file"] == 1.0
    assert found["a"]["b"] == 2


def test_equal_records_are_equal_bytes(tmp_path):
    """Invariance: neither the clock nor the order of the names is in the file."""
    write_npz(tmp_path / "1.npz", {"a": np.ones(3), "b": np.zeros(2)})
    write_npz(tmp_path / "2.npz", {"b": np.zeros(2), "a": np.ones(3)})
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_numpy_reads_the_flat_names(tmp_path):
    """Independent library: numpy alone opens a record, under names "a/b"."""
    write_npz(tmp_path / "record.npz", {"a": {"b": np.arange(3)}})
    with np.load(tmp_path / "record.npz", allow_pickle=False) as archive:
        assert archive.files == ["a/b"]
        np.testing.assert_array_equal(archive["a/b"], np.arange(3))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.array([None])}, "dtype object"),
        ({"x": None}, "dtype object"),
        ({"a": {"x": lambda: 0}}, "a/x must hold numbers"),
        ({"x": jnp.ones(2, jnp.bfloat16)}, "dtype bfloat16; cast it first"),
        ({"x": np.zeros(2, dtype=[("a", "f8")])}, "cast it first"),
        ({"x": [[1, 2], [3]]}, "x must be an array"),
        ({"x": jax.random.key(0)}, "x must be an array"),
        ({"a/b": 1}, "got 'a/b'"),
        ({"..": {"x": 1}}, "got '../x'"),
        ({"": 1}, "file name"),
        ({"a": {1: 1, "1": 2}}, "names"),
    ],
)
def test_refuses_what_would_not_come_back(tmp_path, arrays, sentence):
    """House rule: no pickles, no raw bytes, no names that leave the file."""
    with pytest.raises(ValueError, match=sentence.replace(".", "[.]")):
        write_npz(tmp_path / "record.npz", arrays)
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_record(tmp_path, monkeypatch):
    """Invariance: a write that dies half way leaves the file as it was, and nothing beside it."""
    write_npz(tmp_path / "record.npz", {"x": np.ones(3)})
    before = (tmp_path / "record.npz").read_bytes()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space"):
        write_npz(tmp_path / "record.npz", {"x": np.zeros(3)})
    assert (tmp_path / "record.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_pickles_are_not_read():
    """House rule: an object array, which numpy would unpickle, is refused."""
    pickled = io.BytesIO()
    np.lib.format.write_array(pickled, np.array([None]), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("x.npy", pickled.getvalue())
    archive.seek(0)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_npz(archive)
