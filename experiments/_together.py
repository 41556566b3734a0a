"""Independent runs, side by side on the cores of a CPU, and on all processes there are.

One trap: small matrix products leave most cores idle, so several runs at once are faster than one
after the other; on an accelerator they would only share its memory.
"""

import functools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax

from meanfield import processes, progress


def side_by_side(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    /,
    *,
    keep: Callable[[int, Callable[[], Any]], Any] = lambda at, compute: compute(),
    label: str | None = None,
) -> list[Any]:
    """``[function(item) for item in items]``, several at a time; start with the longest.

    Of several processes (:mod:`meanfield.processes`) each takes the next item when it is free. All
    but the first end here, once it has no more for them to do.

    Args:
        function: What to do with one item; it may compile and run jax programs.
        items: What to do it with.
        keep: What keeps the results for a resumed run (``Kept.members``).
        label: What the items are called where it is shown how many are done; not shown if None.

    Raises:
        BaseException: What a call raised first, at once: calls not yet begun are dropped, those
            under way are abandoned. Only where a call has saved itself because the run is to stop
            are the others waited for, which will do so too.

    >>> side_by_side(abs, [-1, 2])
    [1, 2]
    """
    # No more than a fair share at once: others may still be on their way here.
    fair = -(-len(items) // jax.process_count())
    cores = os.cpu_count() or 1
    workers = min(fair, cores if jax.default_backend() == "cpu" else 1)
    shared, stop = processes.share(len(items)), threading.Event()
    done: queue.SimpleQueue[tuple[int | None, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not stop.is_set() and (at := shared.following()) is not None:
                done.put((at, keep(at, functools.partial(function, items[at]))))
        except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
            done.put((None, error))
        else:
            done.put((None, None))

    # Not a pool: Python joins a pool's threads at exit, minutes after Ctrl-C. And not the main
    # thread even for one worker: no signal is heard there while XLA computes.
    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    try:
        with progress.counted(label, len(items)) as counted:
            results = _collected(done, workers, stop, counted)
    finally:
        stop.set()
    return shared.exchanged(results)


def _collected(
    done: queue.SimpleQueue[Any], workers: int, stop: threading.Event, counted: Callable[[], None]
) -> dict[int, Any]:
    results, halted = {}, None
    while workers:
        at, result = _next(done)
        if at is not None:
            results[at] = result
            counted()
        elif isinstance(result, KeyboardInterrupt):
            stop.set()
            workers, halted = workers - 1, result
        elif result is not None:
            raise result
        else:
            workers -= 1
    if halted is not None:
        raise halted
    return results


def _next(done: queue.SimpleQueue[Any]) -> Any:
    while True:
        try:
            return done.get(timeout=1.0)
        except queue.Empty:
            processes.check()
