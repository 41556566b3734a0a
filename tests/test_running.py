import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meanfield import command, halting, store

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words):
    words = ["paths", "--quiet", "--horizon", "0.5", *words]
    return command.main({"paths": "kept_program"}, words, prog="python -m paths", kind="program")


def interrupted(monkeypatch, *words, number=signal.SIGINT):
    """The status of a run that a signal meets after its members, when nothing saves itself."""

    def between():
        signal.raise_signal(number)
        signal.raise_signal(number)

    # Under a runner in the background SIGINT is ignored.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr("kept_program.between", between)
            return ran(*words)
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(monkeypatch, capfd, place, number):
    """Invariance: interrupted and resumed, a run leaves the record of one in one go, no more."""
    assert ran("--out", "whole") == 0
    assert interrupted(monkeypatch, "--out", "a", number=number) == 128 + number
    said = capfd.readouterr().err
    assert "stopping: 10 s to save what there is; again: at once\n" in said
    again = "python -m paths paths --quiet --horizon 0.5 --out a --resume"
    assert said.endswith(f"interrupted: what was computed is kept; go on with: {again}\n")
    assert sorted(path.name for path in place.iterdir()) == [".a.kept", "whole"]

    assert ran("--out", "a") == 2
    assert "what an interrupted run of a has kept: add --resume" in capfd.readouterr().err
    assert ran("--out", "a", "--resume", "--rtol", "0.1") == 2
    assert "another configuration (rtol: 1e-05 then, 0.1 now)" in capfd.readouterr().err
    # What a killed process left half written.
    (place / ".a.partial-0").mkdir()

    assert ran("--out", "a", "--resume") == 0
    assert sorted(path.name for path in place.iterdir()) == ["a", "whole"]
    assert Path("a/record.npz").read_bytes() == Path("whole/record.npz").read_bytes()
    resumed, whole = (store.load_run(name).manifest for name in ("a", "whole"))
    assert (len(resumed["resumed"]), whole["resumed"]) == (1, [])
    assert "| resumed (UTC) |" in Path("a/report.md").read_text(encoding="utf-8")


def test_resume_of_what_is_complete(capsys):
    """Closed form: nothing is computed twice; another configuration is refused."""
    assert ran("--out", "a", "--resume") == 0
    written = Path("a/manifest.json").stat().st_mtime_ns
    capsys.readouterr()
    assert ran("--out", "a", "--resume") == 0
    assert capsys.readouterr().out == "complete already: a/report.md\n"
    assert Path("a/manifest.json").stat().st_mtime_ns == written
    assert ran("--out", "a", "--resume", "--rtol", "0.1") == 2
    assert "out must be a new or empty directory, got a" in capsys.readouterr().err


def test_resume_needs_a_directory(capsys):
    """Closed form: one sentence, with the remedy."""
    assert ran("--resume") == 2
    assert "--resume goes on with the run of a directory, got none: add --out" in (
        capsys.readouterr().err
    )


def test_a_failed_run_keeps_what_it_has(monkeypatch, capsys):
    """Fault: a full disk at the end costs nothing that was computed."""

    def full(*args, **kwargs):
        raise OSError(28, os.strerror(28), "record.npz")

    with monkeypatch.context() as patch:
        patch.setattr("meanfield.store.save_record", full)
        assert ran("--out", "a") == 1
    assert "what was computed is kept; go on with" in capsys.readouterr().err
    assert ran("--out", "a", "--resume") == 0


def test_what_other_processes_have_stays(monkeypatch, capsys, place):
    """Fault: a run that fails before it computed anything leaves what another process has."""
    other = place / ".it's here.kept-1"

    def fails(*args, **kwargs):
        (other / "members").mkdir(parents=True)
        raise OSError(28, os.strerror(28), "x")

    with monkeypatch.context() as patch:
        patch.setattr("kept_program.side_by_side", fails)
        assert ran("--out", "it's here") == 1
    again = """--horizon 0.5 --out 'it'"'"'s here' --resume"""
    assert again in capsys.readouterr().err
    # Without the words nothing begins, and nothing is removed.
    assert ran("--out", "it's here") == 2
    assert f"{other} is what an interrupted run" in capsys.readouterr().err
    assert (other / "members").is_dir()
    assert ran("--out", "it's here", "--resume") == 0
    assert [path.name for path in place.iterdir()] == ["it's here"]


def test_grace(monkeypatch):
    """Closed form: after the first signal the block has its time, then it ends."""
    monkeypatch.setattr(halting, "GRACE", 0.05)
    seen = []

    def block():
        with halting.heard(saves=True) as stopping:
            seen.append(stopping())
            signal.raise_signal(signal.SIGTERM)
            seen.append(stopping())
            time.sleep(60)
            seen.append("too late")

    with pytest.raises(halting.Halted) as caught:
        block()
    assert seen == [False, True]
    assert caught.value.status == 143


def test_handlers_are_put_back():
    """Invariance: after the block signals do what they did before; ignored ones stay ignored."""
    before = [signal.getsignal(number) for number in halting.SIGNALS]
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with halting.heard(saves=False) as stopping:
            signal.raise_signal(signal.SIGTERM)
            assert not stopping()
    finally:
        signal.signal(signal.SIGTERM, ignored)
    assert [signal.getsignal(number) for number in halting.SIGNALS] == before


@pytest.mark.stress
@pytest.mark.parametrize("blow", ["SIGKILL", "SIGTERM"])
def test_run_killed_at_random(tmp_path, blow):
    """Invariance: killed at random moments and resumed each time, the record is the very same."""
    kills = 20 if "MEANFIELD_STRESS" in os.environ else 2
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/killed_program.py"), tmp_path, str(kills), blow],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert f"{kills} kills, the same record" in done.stdout


def test_heard_amid_a_long_computation():
    """Invariance: XLA computing for minutes in a member does not keep a signal from being heard."""
    code = """
import os, pathlib, signal, tempfile, threading, time
import jax, jax.numpy as jnp
from meanfield import command, halting, kept
x = jnp.ones((64, 64))
long = jax.jit(lambda x: jax.lax.fori_loop(0, 10**9, lambda _, y: jnp.sin(y @ y), x))
long = long.lower(x).compile()
def member():
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    return long(x).block_until_ready()
def front():
    try:
        with halting.heard(saves=False), tempfile.TemporaryDirectory() as home:
            kept.Kept(pathlib.Path(home)).member("long", member)
    except halting.Halted as halted:
        return halted.status
command.end(front)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")
