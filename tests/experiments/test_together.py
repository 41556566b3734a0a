import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from experiments import _together

ROOT = Path(_together.__file__).parents[1]
SLOW = """
import dataclasses, threading, time
import jax, jax.numpy as jnp
from experiments._together import side_by_side

SUMMARY = "Two jobs of minutes."

@dataclasses.dataclass(frozen=True)
class Config:
    job: str = "sleep"

PRESETS = {"default": Config()}
begun = threading.Barrier(2, action=lambda: print("begun", flush=True))

@jax.jit
def long(x):
    return jax.lax.fori_loop(0, 10**9, lambda _, y: jnp.sin(y @ y), x)

def run(config, *, out_dir, progress):
    begin = long.lower(jnp.ones((64, 64))).compile() if config.job == "xla" else None

    def job(item):
        begun.wait()
        if config.job == "fail" and item:
            raise ValueError("item must be 0, got 1")
        begin(jnp.ones((64, 64))).block_until_ready() if begin else time.sleep(600)

    side_by_side(job, [0, 1])
"""
# Under a runner in the background SIGINT is ignored, and a child inherits that.
FRONT = (
    "import signal;"
    "signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from meanfield import command;"
    "command.end(lambda: command.main({'slow': 'slow'}, prog='p', kind='program'))"
)


@pytest.fixture
def started(tmp_path):
    """Starts the program above; it is ended with the test, whatever happens."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "slow.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "place").mkdir()
    processes = []

    def start(job):
        process = subprocess.Popen(
            [sys.executable, "-B", "-c", FRONT, "slow", "--job", job, "--out", "a/b"],
            cwd=tmp_path / "place",
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path / 'code'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def two_workers(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the two jobs wait for each other")
@pytest.mark.parametrize("job", ["sleep", "xla"])
def test_interrupt(started, tmp_path, job):
    """House rule: Ctrl-C amid jobs of minutes ends with a sentence and status 130, and no trace."""
    process = started(job)
    # Long enough for XLA to be computing; the outcome must be the same if it is not.
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (130, "", "\ninterrupted: nothing was written\n")
    assert not list((tmp_path / "place").iterdir())


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the two jobs wait for each other")
def test_a_failing_item_ends_the_program(started, tmp_path):
    """House rule: one bad item is one sentence and status 2, though its neighbour takes minutes."""
    process = started("fail")
    said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (2, "", "error: item must be 0, got 1\n")
    assert not list((tmp_path / "place").iterdir())


def test_order_is_kept(two_workers):
    """Invariance: results come in the order of the items, whichever is ready first."""
    second = threading.Event()

    def job(item):
        if item == 0:
            assert second.wait(60)
        second.set()
        return item * item

    assert _together.side_by_side(job, range(5)) == [0, 1, 4, 9, 16]
    assert _together.side_by_side(job, []) == []


@pytest.mark.parametrize(("backend", "most"), [("cpu", 2), ("gpu", 1)])
def test_never_more_at_once_than_cores(two_workers, monkeypatch, backend, most):
    """Closed form: as many items at once as there are cores, on an accelerator one."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    running, seen, lock = [], [], threading.Lock()

    def job(item):
        with lock:
            running.append(item)
            seen.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(item)

    _together.side_by_side(job, range(6))
    assert len(seen) == 6
    assert max(seen) <= most


def test_a_failure_surfaces_at_once(two_workers):
    """Invariance: an error passes its waiting neighbour by, and what is not begun never begins."""
    release, ended, begun = threading.Event(), threading.Event(), []

    def job(item):
        begun.append(item)
        if item == 1:
            raise KeyError("a bug")
        release.wait(60)
        ended.set()

    with pytest.raises(KeyError, match="a bug"):
        _together.side_by_side(job, [0, 1])
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)
    assert sorted(begun) == [0, 1]


def test_how_many_are_done_is_shown(capsys):
    """Closed form: every item counts, one that was kept too; silent without a label."""
    kept = {1: "kept"}
    found = _together.side_by_side(
        str, [0, 1, 2], keep=lambda at, compute: kept.get(at) or compute(), label="items"
    )
    assert found == ["0", "kept", "2"]
    assert capsys.readouterr().err == "items: 100 %, 00:00 so far\n"
    assert _together.side_by_side(str, [0]) == ["0"]
    assert capsys.readouterr().err == ""
