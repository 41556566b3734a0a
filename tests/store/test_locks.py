import os
import platform
import subprocess
import sys

import pytest

from meanfield import store
from meanfield.store import locks

# Another process by way of fcntl alone, as no second copy of the code under test could show.
HOLDER = """
import fcntl, os, platform, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(os.getpid(), platform.node(), file=file, flush=True)
print("held", flush=True)
sys.stdin.read()
"""


def saved(out):
    with store.open_run(out, experiment="toy") as draft:
        store.save_record(draft, {"x": 1})


def test_a_second_process_is_refused_and_a_dead_one_succeeded(tmp_path):
    """Independent library: fcntl in another process, alive at first and then killed."""
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDER, tmp_path / ".run.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"run is being written by process {holder.pid} on "):
            saved(out)
        holder.kill()
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]
    saved(out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_one_process_counts_too(tmp_path):
    """Invariance: a second run in the same process is refused; another directory is not."""
    with locks.locked(tmp_path / "run"):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on {platform.node()}: wait"):
            saved(tmp_path / "run")
        saved(tmp_path / "other")
    saved(tmp_path / "run")


@pytest.mark.parametrize(
    ("owner", "free"),
    [("12 elsewhere\n", False), (f"12 {platform.node()}\n", True), ("12", True), ("", True)],
)
def test_what_a_lock_left_behind_says(tmp_path, owner, free):
    """Closed form: of this host or cut short it is taken over; another host's is left alone."""
    lock = tmp_path / ".run.lock"
    lock.write_text(owner, encoding="utf-8")
    if free:
        saved(tmp_path / "run")
        assert not lock.exists()
    else:
        with pytest.raises(ValueError, match=r"process 12 on elsewhere: if .* remove .*run[.]lock"):
            saved(tmp_path / "run")
        assert lock.read_text(encoding="utf-8") == owner


def test_a_lock_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Invariance: who locks a file that its holder has just removed must try again."""
    path, flock, tries = tmp_path / ".run.lock", locks.fcntl.flock, []

    def late(descriptor, how):
        flock(descriptor, how)
        tries.append(descriptor)
        if len(tries) == 1:
            path.unlink()

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with locks.locked(tmp_path / "run"):
        assert len(tries) == 2
        assert path.read_text(encoding="utf-8") == f"{os.getpid()} {platform.node()}\n"
