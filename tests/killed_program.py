"""A flow that is killed at random moments, and resumed until its record is there.

    python killed_program.py FOLDER KILLS

The modules are imported once; each flow is a child of this process that no one has run jax in.
"""

import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import flow, store

ROOT, KILLS = Path(sys.argv[1]), int(sys.argv[2])
RATES = np.geomspace(0.01, 30.0, 50)


def energy(theta):
    return jnp.sum(jnp.cos(theta) * RATES) + jnp.sum(RATES * theta**4)


def solve(name, *, kept):
    """Solves the flow in its own folder of checkpoints, and writes the bytes of its record."""
    jax.config.update("jax_enable_x64", True)
    if kept:
        # Programs on disk are for those to be killed; the last one compiles its own.
        jax.config.update("jax_compilation_cache_dir", str(ROOT / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    record = flow.gradient_flow(
        flow.gradient_field(energy),
        jnp.linspace(-1.0, 1.0, 50),
        np.linspace(0.0, 2.0 * KILLS, 9),
        rtol=1e-9 if KILLS > 9 else 1e-7,
        atol=1e-12,
        observe=jnp.sin,
        checkpoint=store.Checkpoints(ROOT / name, steps=5),
    )
    numbers = [
        np.asarray(leaf).tobytes()
        for leaf in jax.tree.leaves(record[:-1])
        if not isinstance(leaf, str)
    ]
    (ROOT / f"{name}.record").write_bytes(b"".join(numbers) + record.message.encode())


def child(name, *, kept=True):
    """The number of a new process that solves the flow."""
    with warnings.catch_warnings():
        # What the warning fears is a parent that has run jax; this one has not.
        warnings.simplefilter("ignore")
        number = os.fork()
    if number == 0:
        status = 1
        try:
            solve(name, kept=kept)
            status = 0
        finally:
            os._exit(status)
    return number


def newest(name):
    """The name of the newest checkpoint, or nothing."""
    return max((path.name for path in (ROOT / name).glob("checkpoint-*")), default="")


def main():
    """Kills as often as asked, then compares."""
    if os.waitpid(child("whole"), 0)[1]:
        raise SystemExit("the undisturbed flow failed")
    chance, killed = random.Random(7), 0
    while killed < KILLS:
        before, number = newest("killed"), child("killed")
        while newest("killed") == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"the flow was over after {killed} kills: it is too short")
        killed += 1
    if os.waitpid(child("killed", kept=False), 0)[1]:
        raise SystemExit("the resumed flow failed")
    one, other = ((ROOT / f"{name}.record").read_bytes() for name in ("whole", "killed"))
    if one != other:
        raise SystemExit("the records differ")
    print(f"{killed} kills, the same record, {newest('killed')}")


if __name__ == "__main__":
    main()
