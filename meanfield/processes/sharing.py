"""Items shared out between processes, their results exchanged, and failures told.

    0/begun  0/next  0/PLACE     the first items: that there are some, who is next, each result
    failed/INDEX  over/status    what went wrong in a process; how the first has ended

One trap: collectives of devices would not do. A process that has nothing left would wait in one
for another's hours of work, which its time limit or the queue of the device forbids. So messages go
through the key-value store of ``jax.distributed``.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax._src import distributed  # the store has no public name

from meanfield.checks import count as checked_count
from meanfield.processes.joining import join
from meanfield.processes.parcels import packed, unpacked

OVER = "over/status"
_calls = itertools.count()


class Share(NamedTuple):
    """Items that all processes work on.

    Attributes:
        following: The place of the next item that nobody has begun; None when all are.
        exchanged: From what this process found, by the places of its items, what all found, in the
            order of the items. All processes but the first end there once it shares out no more.
    """

    following: Callable[[], int | None]
    exchanged: Callable[[dict[int, Any]], list[Any]]


class Over(BaseException):
    """The work of this process is over: the leader has ended, well or badly.

    Attributes:
        status: The exit status that is left for this process.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def leads() -> bool:
    """Whether this process runs the program to its end; one that is alone does.

    >>> leads()
    True
    """
    return distributed.global_state.process_id == 0


@contextlib.contextmanager
def together(where: str | None, /) -> Iterator[None]:
    """A block that several processes run together.

    Args:
        where: As in :func:`join`; None to run it alone.

    Yields:
        Nothing. In other processes than the first, the block begins when there is work in it.

    Raises:
        Over: In these, when the first has ended, or after an error that it will report.

    >>> with together(None):
    ...     pass
    """
    if where is None:
        yield
        return
    join(where)
    try:
        if not leads():
            _await("0/begun")
        yield
        check()
    except Over:
        raise
    except BaseException as error:
        if leads():
            _client().key_value_set(OVER, "1")
            raise
        told = json.dumps([type(error).__name__, str(error)])
        _client().key_value_set(f"failed/{distributed.global_state.process_id}", told)
        if isinstance(error, ValueError | KeyboardInterrupt):
            raise Over(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        raise
    _client().key_value_set(OVER, "0")


def check() -> None:
    """Nothing, as long as no process has failed; the first learns of all, the others of it.

    Raises:
        ValueError: What another process raised because of bad input.
        KeyboardInterrupt: If another was interrupted.
        RuntimeError: If another failed otherwise.
        Over: If the first has ended.

    >>> check()
    """
    client = _client()
    if client is None:
        return
    if not leads():
        for _, status in client.key_value_dir_get("over/"):
            raise Over(int(status))
        return
    for name, text in client.key_value_dir_get("failed/"):
        kind, said = json.loads(text)
        if kind == "KeyboardInterrupt":
            raise KeyboardInterrupt
        if kind == "ValueError":
            raise ValueError(said)
        raise RuntimeError(f"process {name.rpartition('/')[2]} shows where: {kind}: {said}")


def share(number: int, /) -> Share:
    """So many items, shared out between all processes there are.

    Args:
        number: How many items, the same in all processes.

    Raises:
        ValueError: From ``exchanged``, if a result is no tree of arrays, numbers and text.
        Over: From ``exchanged``, in other processes than the first.

    >>> items = share(2)
    >>> items.following(), items.following(), items.following()
    (0, 1, None)
    >>> items.exchanged({1: "b", 0: "a"})
    ['a', 'b']
    """
    checked_count("the number of items", number, least=0)
    client = _client()
    if client is None:
        places = iter(range(number))
        return Share(
            lambda: next(places, None), lambda found: [found[place] for place in range(number)]
        )
    call = next(_calls)
    if leads():
        client.key_value_set(f"{call}/begun", "")

    def following() -> int | None:
        place = client.key_value_increment(f"{call}/next", 1) - 1
        return place if place < number else None

    def exchanged(found: dict[int, Any]) -> list[Any]:
        for place, result in found.items():
            client.key_value_set_bytes(f"{call}/{place}", packed(result))
        if not leads():
            # Not before it is needed: what follows the last items is for the first process alone.
            _await(f"{call + 1}/begun")
        return [
            found[place] if place in found else unpacked(_await(f"{call}/{place}"))
            for place in range(number)
        ]

    return Share(following, exchanged)


def _client() -> Any:
    return distributed.global_state.client


def _await(key: str) -> bytes:
    """What some process will have said under a key."""
    while True:
        try:
            return _client().blocking_key_value_get_bytes(key, 1000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        check()
