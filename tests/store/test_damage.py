"""Damaged runs: whatever is done to its files, a run loads as it was written or not at all."""

import io
import json
import zipfile

import numpy as np
import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meanfield import store
from meanfield.store.manifests import read_manifest, write_manifest
from meanfield.store.records import read_npz

pytestmark = pytest.mark.stress
ARRAYS = {"loss": np.linspace(1, 2, 6).reshape(2, 3), "curves": {"4": np.arange(5), "name": "ab"}}
FILES = ("record.npz", "manifest.json")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda parts: (
        st.lists(parts, max_size=2) | st.dictionaries(st.text(max_size=4), parts, max_size=2)
    ),
    max_leaves=4,
)


def written(out, arrays):
    with store.open_run(out, experiment="toy", config={"heads": (4, 8), "rate": 0.5}) as draft:
        store.save_record(draft, arrays, seeds=[1, 2])
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory to damage, the bytes of its files, and those of another run."""
    place = tmp_path_factory.mktemp("damage")
    return place / "run", written(place / "run", ARRAYS), written(place / "other", {"x": 1.0})


@st.composite
def damages(draw, whole, other):
    """Another content for a file: cut, grown, flipped, blotted out, or somebody else's."""
    kind = draw(st.sampled_from(["cut", "flip", "blot", "insert", "foreign", "other"]))
    at = draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        return whole[:at]
    if kind == "flip":
        return whole[:at] + bytes([whole[at] ^ 1 << draw(st.integers(0, 7))]) + whole[at + 1 :]
    if kind == "blot":
        length = draw(st.integers(1, 600))
        return whole[:at] + bytes(len(whole[at : at + length])) + whole[at + length :]
    if kind == "insert":
        return whole[:at] + draw(st.binary(min_size=1, max_size=9)) + whole[at:]
    if kind == "foreign":
        return draw(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
    return other


def same(left, right):
    """Whether two records are the same bits under the same names."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    left, right = np.asarray(left), np.asarray(right)
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


def result(call):
    """What a call gives, and what the ValueError says that it raises."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


def loaded(out):
    """The run, or None if one sentence refuses it and names what is wrong."""
    run, sentence = result(lambda: store.load_run(out))
    assert run is not None or str(out) in sentence
    assert "\n" not in sentence
    return run


@settings(max_examples=examples(60, 400))
@given(data=st.data())
def test_damaged_files(runs, data):
    """Invariance: bytes changed in either file or both are refused, or change nothing read."""
    out, whole, other = runs
    for name in data.draw(st.sampled_from([FILES[:1], FILES[1:], FILES])):
        (out / name).write_bytes(data.draw(damages(whole[name], other[name])))
    found = loaded(out)
    replaced = (out / "record.npz").read_bytes() == other["record.npz"]
    for name in FILES:
        (out / name).write_bytes(whole[name])
    if found is not None:
        # Somebody else's whole run is a run.
        assert same(found.arrays, {"x": 1.0} if replaced else ARRAYS)
        assert found.manifest == json.loads((other if replaced else whole)["manifest.json"])


def places(node):
    """Each object of a manifest with each of its names."""
    for name, part in node.items():
        yield node, name
        if isinstance(part, dict):
            yield from places(part)


@settings(max_examples=examples(40, 200))
@given(data=st.data(), value=JSON, sealed=st.booleans())
def test_changed_manifests(runs, data, value, sealed):
    """Invariance: one value changed is noticed; made up with a checksum, it misleads nobody."""
    out, whole, _ = runs
    page = out / "manifest.json"
    manifest = json.loads(whole["manifest.json"])
    node, name = data.draw(st.sampled_from(list(places(manifest))))
    changed = store.plain({name: value})[name] != node[name]
    node[name] = value
    if sealed and node is not manifest:
        write_manifest(page, {name: manifest[name] for name in manifest if name != "checksum"})
    else:
        page.write_text(json.dumps(manifest), encoding="utf-8")
    found = loaded(out)
    page.write_bytes(whole["manifest.json"])
    if found is not None:
        # Whoever forges a checksum may change what is told of a record, but not the record.
        assert same(found.arrays, ARRAYS)
        assert sealed or not changed


@settings(max_examples=examples(60, 400))
@given(data=st.data())
def test_records_without_checksum(runs, data):
    """House rule: bytes that no checksum guards give arrays or a ValueError, and nothing else."""
    _, whole, other = runs
    content = data.draw(damages(whole["record.npz"], other["record.npz"]))
    found, sentence = result(lambda: read_npz(io.BytesIO(content)))
    if found is None:
        assert sentence.startswith("expected a record of arrays, got a file that is none (")
        assert "\n" not in sentence
    else:
        assert isinstance(found, dict)


def test_the_format_of_before_is_read(runs):
    """Closed form: format 1 has no checksum of its own; its record still has; none was resumed."""
    out, whole, _ = runs
    manifest = json.loads(whole["manifest.json"]) | {"format": 1}
    del manifest["checksum"], manifest["resumed"]
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert read_manifest(out / "manifest.json") == manifest
    assert same(store.load_run(out).arrays, ARRAYS)
    (out / "manifest.json").write_bytes(whole["manifest.json"])


def npy(shape):
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    box = io.BytesIO()
    np.lib.format.write_array_header_1_0(box, header)
    return box.getvalue()


@pytest.mark.parametrize(
    ("members", "how"),
    [
        ({"x.npy": npy((2**45,))}, zipfile.ZIP_STORED),
        ({"x.npy": npy((2**62, 8))}, zipfile.ZIP_STORED),
        ({"x.npy": npy((0,)) + bytes(10**6)}, zipfile.ZIP_DEFLATED),
        ({"../x.txt": b""}, zipfile.ZIP_STORED),
        ({"x.npy": npy((0,)), "x/y.npy": npy((0,))}, zipfile.ZIP_STORED),
    ],
)
def test_archives_that_promise_too_much(members, how):
    """House rule: more than the file holds, packed, no array, one name inside another: refused."""
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    box.seek(0)
    with pytest.raises(ValueError, match="expected a record of arrays"):
        read_npz(box)


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_directory_bring_nothing_else(runs, name):
    """House rule: what a link leads to is checked as if it lay there."""
    out, whole, _ = runs
    (out / name).unlink()
    (out / name).symlink_to(out.parent / "other" / name)
    found = loaded(out)
    (out / name).unlink()
    (out / name).write_bytes(whole[name])
    assert found is None
