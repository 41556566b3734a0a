"""Independent runs, side by side on the cores of a CPU.

One trap: small matrix products leave most cores idle, so several runs at once are faster than one
after the other; on an accelerator they would only share its memory.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def side_by_side(function: Callable[[Any], Any], items: Sequence[Any], /) -> list[Any]:
    """``[function(item) for item in items]``, several at a time; start with the longest.

    Args:
        function: What to do with one item; it may compile and run jax programs.
        items: What to do it with.

    Raises:
        BaseException: What a call raised; calls not yet begun are dropped.

    >>> side_by_side(abs, [-1, 2])
    [1, 2]
    """
    cores = os.cpu_count() or 1
    workers = min(len(items), cores) if jax.default_backend() == "cpu" else 1
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        return [future.result() for future in [pool.submit(function, item) for item in items]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
