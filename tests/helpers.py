"""Tolerances and counts shared by the suite."""

import os

import numpy as np


def round_off(dtype=np.float64, eps=200):
    """Relative tolerance of a few hundred machine epsilons of `dtype`."""
    return eps * float(np.finfo(dtype).eps)


def examples(short, full):
    """How many cases a test draws: the full count under `make stress`."""
    return full if os.environ.get("MEANFIELD_STRESS") else short
