"""Tolerances and counts shared by the suite."""

import os
from pathlib import Path

import numpy as np


def round_off(dtype=np.float64, eps=200):
    """Relative tolerance of a few hundred machine epsilons of `dtype`."""
    return eps * float(np.finfo(dtype).eps)


def examples(short, full):
    """How many cases a test draws: the full count under `make stress`."""
    return full if os.environ.get("MEANFIELD_STRESS") else short


def redrawn(run, out):
    """The names of the figures of an experiment's run, drawn once more, with equal bytes."""
    from experiments import _cli

    assert _cli.main(["draw", str(run), "--out", str(out)]) == 0
    figures = {path.name for path in Path(run).iterdir() if path.suffix in {".png", ".gif"}}
    assert {path.name for path in out.iterdir()} == figures
    for name in figures:
        assert (out / name).read_bytes() == (Path(run) / name).read_bytes(), name
    return figures
