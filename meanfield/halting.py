"""Signals that end a run: it is asked to stop at its next step, and made to after a while.

One trap: Python hears a signal between two of its own instructions, and in the main thread alone. A
call that computes for minutes is heard of when it is over, or never where another signal kills.
"""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 10.0
"""Seconds that a run has to save itself."""


class Halted(KeyboardInterrupt):
    """A signal has ended the block.

    Attributes:
        status: The exit status that tells of it: 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@contextlib.contextmanager
def heard(*, saves: bool) -> Iterator[Callable[[], bool]]:
    """A block that SIGINT and SIGTERM end, at its next good moment where it has any.

    Args:
        saves: Whether the block asks now and then. If so the first signal does no more than answer
            it, and the block ends by a second one, or ``GRACE`` seconds later; if not, at once.

    Yields:
        Whether a signal has come.

    Raises:
        Halted: In the block, or after it where that ended by a KeyboardInterrupt of its own.

    >>> with heard(saves=True) as stopping:
    ...     stopping()
    False
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    late: list[threading.Timer] = []

    def hear(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if not saves or len(came) > 1:
            raise Halted(came[0])
        # Not print: the signal may have come amid one.
        os.write(2, f"\nstopping: {GRACE:g} s to save what there is; again: at once\n".encode())
        # To the main thread, so that it is woken from whatever it waits for.
        late.append(threading.Timer(GRACE, signal.pthread_kill, [threading.get_ident(), number]))
        late[0].daemon = True
        late[0].start()

    before = {number: signal.signal(number, hear) for number in SIGNALS if _is_ours(number)}
    try:
        yield lambda: bool(came)
    except Halted:
        raise
    except KeyboardInterrupt as error:
        halted = Halted(came[0] if came else signal.SIGINT)
        for note in getattr(error, "__notes__", ()):
            halted.add_note(note)
        raise halted from error
    finally:
        for timer in late:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def aside(compute: Callable[[], T], /) -> T:
    """What ``compute`` returns, computed in another thread while the main one hears signals.

    Args:
        compute: What may take long, and may compile and run jax programs.

    Raises:
        BaseException: What it raised; or Halted, at once, and it is abandoned.

    >>> aside(lambda: 1 + 1)
    2
    """
    if threading.current_thread() is not threading.main_thread():
        return compute()
    done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((compute(), None))
        except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    result, error = done.get()
    if error is not None:
        raise error
    return result


def _is_ours(number: int) -> bool:
    # Ignored on purpose, by nohup say, or by a shell that runs this in the background.
    return signal.getsignal(number) is not signal.SIG_IGN
