"""Tolerances shared by the suite."""

import numpy as np


def round_off(dtype=np.float64, eps=200):
    """Relative tolerance of a few hundred machine epsilons of `dtype`."""
    return eps * float(np.finfo(dtype).eps)
