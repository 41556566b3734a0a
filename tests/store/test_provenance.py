import dataclasses
import enum
import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import store
from meanfield.store import provenance


class Parametrisation(enum.Enum):
    MEAN_FIELD = 1


class Pair(NamedTuple):
    left: int
    right: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    heads: tuple[int, ...] = (4, 8)
    scaling: Parametrisation = Parametrisation.MEAN_FIELD
    place: Path = Path("a/b")
    pair: Pair


def test_plain_is_json():
    """Closed form: each kind of choice in the words of strict JSON."""
    config = Config(pair=Pair(1, float("nan")))
    found = store.plain({"config": config, "x": np.float32(0.5), "y": jnp.arange(2), "z": None})
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "config": {
            "heads": [4, 8],
            "scaling": "MEAN_FIELD",
            "place": "a/b",
            "pair": {"left": 1, "right": "nan"},
        },
        "x": 0.5,
        "y": [0, 1],
        "z": None,
    }


@pytest.mark.parametrize("choice", [len, object(), Config, {1, 2}, b"x"])
def test_plain_refuses_what_has_no_words(choice):
    """House rule: a choice that cannot be read again is refused, not shortened."""
    with pytest.raises(ValueError, match="a configuration must hold numbers, text"):
        store.plain({"kernel": choice})


def test_versions_and_device():
    """Independent library: the versions that jax and numpy give themselves."""
    assert provenance.versions()["jax"] == jax.__version__
    assert provenance.versions()["numpy"] == np.__version__
    assert provenance.device()["backend"] == jax.default_backend()
    assert len(provenance.device()["devices"]) == jax.device_count()
    assert provenance.device()["x64"] is True


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
    quiet = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *name, *words], cwd=folder, env=quiet, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_commit(tmp_path, monkeypatch):
    """Independent library: git itself, on a repository before, at and after a commit."""
    module = tmp_path / "package" / "provenance.py"
    module.parent.mkdir()
    module.write_text("", encoding="utf-8")
    monkeypatch.setattr(provenance, "__file__", str(module))
    git(tmp_path, "init", "--quiet")
    # Installed below somebody's repository, untracked by it: that commit says nothing about us.
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "theirs")
    assert provenance.commit() is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "ours")
    head = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance.commit() == {"id": head, "dirty": False}
    (tmp_path / "new.py").write_text("", encoding="utf-8")
    assert provenance.commit() == {"id": head, "dirty": True}


def test_commit_without_git(monkeypatch):
    """Closed form: no git, no commit, no error."""
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
