"""Memory that ran out: how it shows, and which choices of a program to lower.

    chunks     how much is handled at once; the numbers of a run stay the same but for round-off
    replicas   how many runs lie side by side in one program
    sizes      of the problem itself; another problem is solved with less

One trap: where a system promises more memory than it has, it ends the process without a word. Only
what is refused at the asking can be told.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

CHUNKS = ("chunk", "together", "batch", "text_batch", "pathfinder_batch", "measured")
REPLICAS = ("seeds", "reference_seeds", "draws", "restarts")
SIZES = (
    *("heads", "widths", "width", "reference", "reference_width", "neurons", "cells", "images"),
    *("reviews", "length", "samples", "points", "prompts", "depths", "depth", "dim"),
)
"""Names of choices in configurations; what is meant by each is the same everywhere."""
SIGNS = ("RESOURCE_EXHAUSTED", "out of memory", "bad_alloc")
MOST = 4
"""Choices that are named at most: who is told ten is told nothing."""


class OutOfMemoryError(RuntimeError):
    """A computation asked for more memory than there is; the message says what to lower."""


def is_out_of_memory(error: BaseException, /) -> bool:
    """Whether an error says that memory ran out: that of Python or numpy, or one of XLA.

    Args:
        error: The error.

    >>> is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."))
    True
    """
    said = str(error).lower()
    named = any(sign.lower() in said for sign in SIGNS)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and named)


def remedy(config: Any, /) -> str:
    """Which choices to lower, as flags, with what they are now.

    Args:
        config: The configuration of a program: a dataclass.

    >>> Config = dataclasses.make_dataclass("Config", [("seeds", int, 5), ("chunk", object, None)])
    >>> remedy(Config())
    'lower --chunk (now None: all at once) or --seeds (now 5)'
    """
    fields = [field.name for field in dataclasses.fields(config)]
    named = [name for name in (*CHUNKS, *REPLICAS) if name in fields][:MOST]
    named += [name for name in SIZES if name in fields][: MOST - len(named)]
    if not named:
        return "use a machine with more of it"
    flags = [f"--{name.replace('_', '-')} (now {_now(getattr(config, name))})" for name in named]
    *first, last = flags
    return f"lower {', '.join(first)} or {last}" if first else f"lower {last}"


@contextlib.contextmanager
def told(config: Any, /) -> Iterator[None]:
    """In this block, memory that runs out is said in one sentence.

    Args:
        config: The configuration of the program.

    Raises:
        OutOfMemoryError: If memory ran out.

    >>> with told(dataclasses.make_dataclass("Config", [("seeds", int, 5)])()):
    ...     raise MemoryError
    Traceback (most recent call last):
    meanfield.shortage.OutOfMemoryError: out of memory: lower --seeds (now 5)
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        short = OutOfMemoryError(f"out of memory{_wanted(error)}: {remedy(config)}")
        for note in getattr(error, "__notes__", []):
            # What jax notes is of its traceback, which is not shown.
            if "JAX has removed" not in note:
                short.add_note(note)
        raise short from error


def _now(value: Any) -> str:
    if value is None:
        return "None: all at once"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _wanted(error: BaseException) -> str:
    """How much was asked for, where that is said."""
    found = re.search(r"llocat\w* (?:of )?([\d.]+) ?(bytes|[KMGTP]i?B)", str(error))
    if found is None:
        return ""
    size = f"{found[1].rstrip('.')} {found[2]}"
    if found[2] == "bytes":
        number = float(found[1])
        size = f"{number / 2**30:.3g} GiB" if number < 2**40 else f"{number / 2**40:.3g} TiB"
    return f", {size} wanted at once"
