"""Independent runs, side by side on the cores of a CPU.

One trap: small matrix products leave most cores idle, so several runs at once are faster than one
after the other; on an accelerator they would only share its memory.
"""

import collections
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax


def side_by_side(function: Callable[[Any], Any], items: Sequence[Any], /) -> list[Any]:
    """``[function(item) for item in items]``, several at a time; start with the longest.

    Args:
        function: What to do with one item; it may compile and run jax programs.
        items: What to do it with.

    Raises:
        BaseException: What a call raised first, or Ctrl-C, at once: calls not yet begun are
            dropped, those under way are abandoned.

    >>> side_by_side(abs, [-1, 2])
    [1, 2]
    """
    cores = os.cpu_count() or 1
    workers = min(len(items), cores) if jax.default_backend() == "cpu" else 1
    waiting = collections.deque(enumerate(items))
    done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    # Not a pool: Python joins a pool's threads at exit, minutes after Ctrl-C. And not the main
    # thread even for one worker: no signal is heard there while XLA computes.
    for _ in range(workers):
        threading.Thread(target=_work, args=(function, waiting, done), daemon=True).start()
    results = {}
    try:
        for _ in items:
            place, result, error = done.get()
            if error is not None:
                raise error
            results[place] = result
    finally:
        waiting.clear()
    return [results[place] for place in range(len(items))]


def _work(
    function: Callable[[Any], Any],
    waiting: collections.deque[tuple[int, Any]],
    done: queue.SimpleQueue[tuple[int, Any, BaseException | None]],
) -> None:
    while True:
        try:
            place, item = waiting.popleft()
        except IndexError:
            return
        try:
            done.put((place, function(item), None))
        except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
            done.put((place, None, error))
