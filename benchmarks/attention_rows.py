"""Rows of the attention and width benchmarks: one contender's agreement, time and memory.

    error = largest difference of outputs and gradients from the truth

One trap: a contender that is left out has a row all the same, of NaN.
"""

import functools
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from benchmarks import attention_problem
from benchmarks.attention_peers import DOT_PRODUCT, EINSUM, LINEN, NNX, OURS, SPREAD, TORCH
from benchmarks.attention_problem import Contender
from benchmarks.distance_timing import Timing, interleaved
from meanfield.store import provenance

# Okabe and Ito's colours, told apart without colour vision too.
COLORS = {
    OURS: "#D55E00",
    SPREAD: "#E69F00",
    EINSUM: "#999999",
    LINEN: "#0072B2",
    NNX: "#56B4E9",
    DOT_PRODUCT: "#009E73",
    TORCH: "#CC79A7",
}
WORDS = {True: "met", False: "missed", None: ""}
NUMBERS = ("error", "seconds", "processor_seconds", "compile_seconds", "scratch_bytes",
           "argument_bytes", "output_bytes")  # fmt: skip

Name = TypeVar("Name", bound=Hashable)


def environment() -> dict[str, Any]:
    """What the numbers of a run depend on besides its configuration."""
    return {
        "versions": provenance.versions(),
        "device": provenance.device(),
        "commit": provenance.commit(),
    }


def measured(
    found: Mapping[Name, Contender | str],
    truths: Mapping[Name, Any],
    *,
    rounds: int,
    least_seconds: float,
    patience: float,
) -> dict[Name, dict[str, Any]]:
    """What is known of every contender, whose times are taken in turns.

    Args:
        found: Contenders, or why there is none.
        truths: Their outputs and gradients, as they should be.
        rounds: Samples of each.
        least_seconds: Seconds that one sample fills.
        patience: Seconds for all samples of one contender.
    """
    present = {name: it for name, it in found.items() if isinstance(it, Contender)}
    errors = {
        name: attention_problem.apart(attention_problem.answer(it), truths[name])
        for name, it in present.items()
    }
    timings = interleaved(
        {str(name): functools.partial(finished, it) for name, it in present.items()},
        rounds=rounds,
        least_seconds=least_seconds,
        patience=patience,
    )
    missing = dict.fromkeys(NUMBERS, np.nan) | {"quartiles": (np.nan, np.nan), "samples": 0}
    return {
        name: _numbers(it, errors[name], timings[str(name)]) | {"left_out": ""}
        if isinstance(it, Contender)
        else missing | {"left_out": it}
        for name, it in found.items()
    }


def finished(contender: Contender) -> float:
    """Nothing, after the gradient is taken."""
    contender.run()
    return 0.0


def as_arrays(rows: list[dict]) -> dict[str, np.ndarray]:
    """The rows as columns."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def word(*, met: bool | None) -> str:
    """Met, or missed in bold; nothing where nothing is asked."""
    return f"**{WORDS[met]}**" if met is False else WORDS[met]


def _numbers(it: Contender, error: float, timing: Timing) -> dict[str, Any]:
    low, high = np.quantile(timing.samples, [0.25, 0.75])
    return {
        "error": error,
        "seconds": timing.seconds,
        "processor_seconds": timing.processor_seconds,
        "quartiles": (float(low), float(high)),
        "samples": len(timing.samples),
        "compile_seconds": it.compile_seconds,
        "scratch_bytes": it.scratch_bytes,
        "argument_bytes": it.argument_bytes,
        "output_bytes": it.output_bytes,
    }
