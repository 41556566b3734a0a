"""A run of three flows that is killed at random moments, and resumed until it is there.

    python killed_program.py FOLDER KILLS SIGNAL

The modules are imported once; each attempt is a child of this process that no one has run jax in.
"""

import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import jax

from meanfield import command, kept
from meanfield.flow import resuming

ROOT, KILLS = Path(sys.argv[1]), int(sys.argv[2])
# Short segments, each of them saved, so that an attempt gets on by little.
kept.SECONDS, resuming._SEGMENT_SECONDS = 0.01, 0.02


def run(name, *, last=False):
    """Runs the program of three flows under its command line, and copies its record."""
    words = ["paths", "--out", str(ROOT / name), "--resume", "--quiet"]
    words += ["--horizon", str(2.0 * KILLS), "--rtol", "1e-10"]
    # Programs on disk are for those to be killed; the last one compiles its own.
    words += [] if last else ["--cache", str(ROOT / "programs")]
    status = command.main({"paths": "kept_program"}, words, prog="paths", kind="program")
    if status == 0:
        (ROOT / f"{name}.record").write_bytes((ROOT / name / "record.npz").read_bytes())
    return status


def child(name, *, last=False):
    """The number of a new process that makes an attempt."""
    with warnings.catch_warnings():
        # What the warning fears is a parent that has run jax; this one has not.
        warnings.simplefilter("ignore")
        number = os.fork()
    if number == 0:
        status = 1
        try:
            jax.config.update("jax_enable_x64", True)
            status = run(name, last=last)
        finally:
            os._exit(status)
    return number


def newest(name):
    """What has been computed; it changes as long as an attempt gets on."""
    home = ROOT / f".{name}.kept"
    return sorted([*home.glob("flows/*/checkpoint-*"), *home.glob("members/*/checkpoint-*")])


def main():
    """Kills as often as asked, then compares."""
    if os.waitpid(child("whole"), 0)[1]:
        raise SystemExit("the undisturbed one failed")
    chance, killed, blow = random.Random(7), 0, signal.Signals[sys.argv[3]]
    while killed < KILLS:
        before, number = newest("killed"), child("killed")
        while newest("killed") == before:
            if os.waitpid(number, os.WNOHANG)[0]:
                raise SystemExit(f"it was over after {killed} kills: it is too short")
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(number, blow)
        _, status = os.waitpid(number, 0)
        said = os.waitstatus_to_exitcode(status)
        if said not in (-blow, 128 + blow):
            raise SystemExit(f"after {killed} kills it ended with {said}")
        killed += 1
    if os.waitpid(child("killed", last=True), 0)[1]:
        raise SystemExit("the resumed one failed")
    one, other = ((ROOT / f"{name}.record").read_bytes() for name in ("whole", "killed"))
    if one != other:
        raise SystemExit("the records differ")
    print(f"{killed} kills, the same record")


if __name__ == "__main__":
    main()
