import json
import os
import time

import numpy as np
import pytest

from meanfield import store


def saved(out, arrays=None, **options):
    with store.open_run(out, experiment="toy", config={"heads": (4, 8)}) as draft:
        store.save_record(draft, {"x": np.arange(3.0)} if arrays is None else arrays, **options)
    return out


def test_round_trip(tmp_path):
    """Closed form: what went in comes out, and the manifest says where from."""
    out = saved(tmp_path / "deep" / "run", seeds=[0, 1], data={"digits": "0" * 64})
    arrays, manifest = store.load_run(out)
    np.testing.assert_array_equal(arrays["x"], np.arange(3.0))
    assert manifest["experiment"] == "toy"
    assert manifest["config"] == {"heads": [4, 8]}
    assert manifest["seeds"] == [0, 1]
    assert manifest["data"] == {"digits": "0" * 64}
    assert manifest["record"]["sha256"] == store.checksum(out / "record.npz")
    assert manifest["versions"]["numpy"] == np.__version__
    assert {"commit", "device", "started", "wall_seconds", "format"} <= set(manifest)
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_wall_time_ignores_the_clock(tmp_path, monkeypatch):
    """Invariance: setting the clock back during a run does not make its wall time negative."""
    with store.open_run(tmp_path / "run", experiment="toy") as draft:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        manifest = store.save_record(draft, {"x": 1})
    assert 0 <= manifest["wall_seconds"] < 60


def test_appears_only_complete(tmp_path):
    """Invariance: until the block ends the directory has another name, in the same place."""
    out = tmp_path / "run"
    with store.open_run(out, experiment="toy") as draft:
        store.save_record(draft, {"x": 1})
        assert draft.directory.parent == out.parent
        assert not out.exists()
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "record.npz"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_nothing(tmp_path, failure):
    """Invariance: a run that fails, however late, leaves the place as it was."""

    def fail():
        with store.open_run(tmp_path / "run", experiment="toy") as draft:
            store.save_record(draft, {"x": 1})
            (draft.directory / "figures").mkdir()
            raise failure

    with pytest.raises(failure):
        fail()
    assert not list(tmp_path.iterdir())


def test_failure_removes_only_the_parents_it_made(tmp_path):
    """Invariance: new parents go with a failed run, but none that was there or is in use."""

    def fail(out, *, neighbour=None):
        with store.open_run(out, experiment="toy"):
            if neighbour:
                neighbour.touch()
            raise RuntimeError

    (tmp_path / "old").mkdir()
    for out in (tmp_path / "old" / "run", tmp_path / "old" / "a" / "b" / "run"):
        with pytest.raises(RuntimeError):
            fail(out)
        assert [path.name for path in tmp_path.rglob("*")] == ["old"]
    with pytest.raises(RuntimeError):
        fail(tmp_path / "new" / "a" / "run", neighbour=tmp_path / "new" / "other")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["other"]


def test_a_record_is_required(tmp_path):
    """House rule: a run directory without a record does not come into being."""
    with (
        pytest.raises(ValueError, match="no record"),
        store.open_run(tmp_path / "run", experiment="toy"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def full(out):
    out.mkdir()
    (out / "precious").touch()


def below_a_file(out):
    out.parent.rmdir()
    out.parent.touch()


def looped(out):
    out.symlink_to(out)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (full, "has files in it"),
        (lambda out: out.touch(), "which is a file"),
        (below_a_file, "name another place"),
        (looped, "name another place"),
    ],
)
def test_refuses_bad_places_before_computing(tmp_path, spoil, sentence):
    """House rule: one sentence before the block starts; what lies there is untouched."""
    out = tmp_path / "parent" / "run"
    out.parent.mkdir()
    spoil(out)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(ValueError, match=f"out must be .*{sentence}"),
        store.open_run(out, experiment="toy"),
    ):
        pytest.fail("the block ran")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", ["/proc/run", "a" * 300, "new/" + "a" * 300, "nul\0byte", "/"])
def test_refuses_unwritable_places(tmp_path, monkeypatch, out):
    """House rule: a place where no directory can be made is refused before computing."""
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ValueError, match="out must be "),
        store.open_run(out, experiment="toy"),
    ):
        pytest.fail("the block ran")
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_refuses_a_mount_point(tmp_path, monkeypatch):
    """House rule: nothing can be renamed onto a mount point, so it is refused at the start."""
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    with (
        pytest.raises(ValueError, match="mount point"),
        store.open_run(tmp_path, experiment="toy"),
    ):
        pytest.fail("the block ran")


def test_empty_directory_is_fine(tmp_path):
    """Closed form: an empty directory holds nothing that could be lost."""
    (tmp_path / "run").mkdir()
    assert store.load_run(saved(tmp_path / "run")).manifest["experiment"] == "toy"


def test_a_taken_name_loses_no_work(tmp_path):
    """Invariance: if the name is taken meanwhile, both runs are still there."""
    out = tmp_path / "run"

    def race():
        with store.open_run(out, experiment="slow") as draft:
            store.save_record(draft, {"x": 1})
            # Another program, which knows nothing of the lock.
            saved(tmp_path / "other").rename(out)

    with pytest.raises(ValueError, match="its whole record is in") as caught:
        race()
    assert store.load_run(out).manifest["experiment"] == "toy"
    (kept,) = (path for path in tmp_path.iterdir() if path != out)
    assert str(kept) in str(caught.value)
    assert store.load_run(kept).manifest["experiment"] == "slow"


def test_config_is_checked_before_computing(tmp_path):
    """House rule: a configuration the manifest cannot hold stops the run at the start."""
    with (
        pytest.raises(ValueError, match="a configuration must hold"),
        store.open_run(tmp_path / "run", experiment="toy", config={"kernel": len}),
    ):
        pytest.fail("the block ran")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign"])
def test_damaged_records_are_named(tmp_path, damage):
    """Independent library: sha256 tells any other bytes from those that were written."""
    record = saved(tmp_path / "run") / "record.npz"
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    other = saved(tmp_path / "other", {"x": np.zeros(3)}) / "record.npz"
    record.write_bytes(
        {"flip": content, "cut": content[:-10], "foreign": other.read_bytes()}[damage]
    )
    with pytest.raises(ValueError, match=r"record[.]npz is not the record that was written"):
        store.load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no manifest"),
        ("[]", "is no manifest"),
        ("\xff", "is no manifest"),
        ("[" * 100_000, "is no manifest"),
        ('{"format": 1}', "is no manifest"),
        ('{"format": 1, "record": 3}', "is no manifest"),
        ('{"format": 99, "record": {"sha256": ""}}', "has format 99"),
        ('{"format": 2, "record": {"sha256": ""}}', "is not the manifest"),
        ('{"format": 1, "record": {"sha256": ""}}', "is no manifest"),
    ],
)
def test_bad_manifests_are_named(tmp_path, content, sentence):
    """House rule: one sentence for a manifest that is cut, foreign, newer or wrong."""
    out = saved(tmp_path / "run")
    (out / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=sentence):
        store.load_run(out)


def test_manifest_paths_are_not_followed(tmp_path):
    """House rule: the record is record.npz, whatever a manifest says."""
    out = saved(tmp_path / "run")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    manifest["record"]["path"] = manifest["record"]["file"] = "../other/record.npz"
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (out / "record.npz").unlink()
    saved(tmp_path / "other")
    with pytest.raises(ValueError, match="is no run"):
        store.load_run(out)
