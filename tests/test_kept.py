import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import kept


class Found(NamedTuple):
    values: object
    said: str


@pytest.fixture
def calls():
    return []


def member(home, calls, name="path 3", **options):
    def compute():
        calls.append(name)
        return {"found": [Found(jnp.array([0.1, -0.0]), "completed"), None, np.float32(0.1)]}

    return kept.Kept(home, **options).member(name, compute)


def test_member_is_computed_once(tmp_path, calls):
    """Invariance: what a resumed run reads is what the first computed: kinds, dtypes and bits."""
    first, second = member(tmp_path / "a", calls), member(tmp_path / "a", calls)
    assert calls == ["path 3"]
    assert repr(first) == repr(second)
    one, other = first["found"][0].values, second["found"][0].values
    assert type(one) is type(other)
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("names", [("a b", "a_b"), ("a/b", "a%2Fb"), ("x", "X"), ("..", ".")])
def test_names_are_told_apart(tmp_path, calls, names):
    """Injectivity: another name is another member, and none leaves the directory."""
    for name in names:
        member(tmp_path / "inner" / "home", calls, name=name)
    assert calls == list(names)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["home"]


def test_members_of_other_processes(tmp_path, calls):
    """Invariance: what another process of the run has kept is read too."""
    member(tmp_path / "1", calls)
    member(tmp_path / "0", calls, siblings=(tmp_path / "1", tmp_path / "2"))
    assert calls == ["path 3"]
    assert not (tmp_path / "0").exists()


def test_damaged_member_is_computed_again(tmp_path, calls):
    """Fault: a changed byte is named, and the member is computed once more."""
    member(tmp_path, calls)
    (path,) = tmp_path.rglob("*.mfc")
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"path 3 is computed again: .* was changed"):
        member(tmp_path, calls)
    member(tmp_path, calls)
    assert len(calls) == 2


def test_nothing_new_when_stopping(tmp_path, calls):
    """Invariance: a run that is to stop reads what there is, and begins nothing."""
    member(tmp_path, calls)
    member(tmp_path, calls, stopping=lambda: True)
    with pytest.raises(KeyboardInterrupt):
        member(tmp_path, calls, name="path 4", stopping=lambda: True)
    assert calls == ["path 3"]


@dataclasses.dataclass(frozen=True)
class Config:
    heads: tuple[int, ...] = (4, 8)
    limit: float = float("nan")


def test_given_must_be_the_same(tmp_path):
    """Closed form: the first choice that differs is named, with both values and the remedy."""
    keep = kept.Kept(tmp_path)
    keep.same("configuration", Config())
    keep.same("configuration", Config())
    with pytest.raises(
        ValueError, match=r"another configuration \(heads: \[4, 8\] then, \[4\] now"
    ):
        keep.same("configuration", Config(heads=(4,)))
    keep.same("data", {"digits": "0"})
    with pytest.raises(ValueError, match="another data .*digits: '0' then, None now.*begin anew"):
        keep.same("data", {"cifar10": "0"})


def test_starts(tmp_path):
    """Closed form: every start is remembered, in order."""
    assert kept.Kept(tmp_path).starts("monday") == ["monday"]
    assert kept.Kept(tmp_path).starts("tuesday") == ["monday", "tuesday"]


def test_what_counts_as_kept(tmp_path, calls):
    """Closed form: what was given is nothing computed; a member is, at whatever place."""
    one, other = tmp_path / "a", tmp_path / "b"
    kept.Kept(one).same("data", {})
    assert not kept.holds(one, other)
    member(one, calls)
    assert kept.holds(other, one)
    assert not kept.holds(other)


def test_nothing(calls):
    """Closed form: without a directory all is computed, and nothing is saved or asked."""
    assert kept.NOTHING.checkpoints("a") is None
    kept.NOTHING.same("data", object())
    assert kept.NOTHING.starts("now") == ["now"]
    assert kept.NOTHING.members("path")(3, lambda: 5) == 5


def test_checkpoints(tmp_path):
    """Closed form: a computation's checkpoints know how often, and whether to stop."""
    found = kept.Kept(tmp_path, stopping=lambda: True).checkpoints("seed 1")
    assert found is not None
    assert (found.seconds, found.steps, found.stopping()) == (kept.SECONDS, None, True)
    assert found.directory == tmp_path / "flows" / "seed 1"


@pytest.mark.parametrize("result", [object(), {1: {2}}])
def test_results_that_cannot_be_kept(tmp_path, result):
    """Closed form: a result that is no tree of arrays is refused by its type."""
    with pytest.raises(ValueError, match=re.escape(type(result).__name__) + "|set"):
        kept.Kept(tmp_path).member("a", lambda: result)


def test_place():
    """Closed form: hidden beside the run; each process has its own."""
    assert kept.beside(Path("runs/a"), process=2) == Path("runs/.a.kept-2")
