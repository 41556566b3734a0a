r"""What an unfinished run keeps: finished members, and checkpoints of those under way.

    .NAME.kept/given/*     what the run was told: its configuration, its data
    .NAME.kept/members/*   the result of each finished member
    .NAME.kept/flows/*     checkpoints of what is under way

A member is a part of a run whose result depends on what was given alone. A resumed run reads the
members that are there and computes the others, so its record is the same, bit for bit.

One trap: the name of a member must say which it is. Two under one name would be one result.
"""

import contextlib
import json
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from meanfield import halting, processes, store

T = TypeVar("T")
SECONDS = 30.0
"""Between two checkpoints of what is under way."""


class Kept:
    """What a run keeps in a directory of its own; without one, nothing.

    Attributes:
        directory: Where; None to keep nothing.
        siblings: Where other processes of the run keep theirs.
        stopping: Whether the run is to save itself and stop.

    >>> NOTHING.member("sum", lambda: 1 + 1)
    2
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        siblings: tuple[Path, ...] = (),
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.directory, self.siblings, self.stopping = directory, siblings, stopping

    def same(self, name: str, value: Any, /) -> None:
        """Makes sure that what the run is given is what it was given when it began.

        Args:
            name: What it is, say ``"data"``.
            value: Anything JSON can hold, or a dataclass.

        Raises:
            ValueError: If it is something else; the first difference is named.
        """
        if self.directory is None:
            return
        given, place = store.plain(value), self._place("given", name)
        known = place.load()
        if known is None:
            place.save({"value": np.array(json.dumps(given))})
            return
        before = json.loads(str(known["value"]))
        if before != given:
            raise ValueError(
                f"{self.directory} is of a run with another {name} "
                f"({_difference(before, given)}): resume with the same, or remove it to begin anew"
            )

    def starts(self, now: str, /) -> list[str]:
        """When the run was started and resumed, this time included.

        Args:
            now: The time of this start.
        """
        if self.directory is None:
            return [now]
        place = self._place("given", "starts")
        known = place.load()
        every = [*(json.loads(str(known["value"])) if known else ()), now]
        place.save({"value": np.array(json.dumps(every))})
        return every

    def member(self, name: str, compute: Callable[[], T], /) -> T:
        """The result of a member: read if it is kept, else computed and kept.

        Args:
            name: Which member.
            compute: What computes it, in another thread than the main one: a tree of arrays,
                numbers and text.

        Raises:
            KeyboardInterrupt: Instead of computing, if the run is to stop.
            ValueError: If the result is no such tree.
        """
        if self.directory is None:
            return compute()
        for home in (self.directory, *self.siblings):
            with _passed_over(name):
                found = self._place("members", name, home=home).load()
                if found is not None:
                    return processes.unpacked(found["result"].tobytes())
        if self.stopping():
            raise KeyboardInterrupt
        # Aside, where a signal is heard however long it takes.
        parcel = processes.packed(halting.aside(compute))
        self._place("members", name).save({"result": np.frombuffer(parcel, np.uint8)})
        # As a resumed run will read it: a sum depends on how its terms lie in memory.
        return processes.unpacked(parcel)

    def members(self, name: str, /) -> Callable[[int, Callable[[], T]], T]:
        """Members told apart by a number: ``(number, compute) -> result``.

        Args:
            name: What they have in common.
        """
        return lambda number, compute: self.member(f"{name} {number}", compute)

    def checkpoints(self, name: str, /) -> store.Checkpoints | None:
        """Where a computation under way is to save itself; None to save nothing.

        Args:
            name: Which computation.
        """
        return self._place("flows", name) if self.directory else None

    def _place(self, kind: str, name: str, *, home: Path | None = None) -> store.Checkpoints:
        # One to one, and no name leaves the directory.
        folder = (home or self.directory or Path()) / kind / urllib.parse.quote(name, safe=" ,=+")
        return store.Checkpoints(folder, seconds=SECONDS, stopping=self.stopping)


NOTHING = Kept(None)
"""What a run that is not to be resumed keeps."""


def holds(*places: Path) -> bool:
    """Whether anything that was computed lies at one of the places.

    Args:
        places: Directories of :class:`Kept`, which need not exist.

    >>> holds(Path("no"), Path("such"))
    False
    """
    return any((place / kind).exists() for place in places for kind in ("members", "flows"))


def beside(final: Path, /, *, process: int = 0) -> Path:
    """Where the run of a directory keeps what it needs to resume.

    Args:
        final: The directory of the run.
        process: Which of its processes.

    >>> beside(Path("runs/a")).as_posix()
    'runs/.a.kept'
    """
    return final.with_name(f".{final.name}.kept" + (f"-{process}" if process else ""))


@contextlib.contextmanager
def _passed_over(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as fault:
        warnings.warn(f"{name} is computed again: {fault}", stacklevel=3)


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *now]:
            if before.get(key) != now.get(key):
                return f"{key}: {before.get(key)!r} then, {now.get(key)!r} now"
    return f"{before!r} then, {now!r} now"
