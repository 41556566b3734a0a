"""The command line of programs that write run directories: one front for all of them.

    python -m PROGRAMS                  the list, one line each
    python -m PROGRAMS NAME [--preset P] [--out DIR] [--data PATH] [--quiet] [--cache DIR]
                            [--resume] [--distributed [WHERE]] [--json] [--FIELD VALUE ...]
    python -m PROGRAMS show DIR [--json]
    python -m PROGRAMS draw DIR [--out DIR] [--json]
    python -m PROGRAMS compare DIR DIR ... [--out DIR] [--json]
    python -m PROGRAMS --from DIR [--out DIR] [--FIELD VALUE ...]
                                        the program and choices of that run once more

A program is a module with SUMMARY (a line of text), Config (a frozen dataclass), PRESETS (a dict of
them, one called "default") and ``run(config, *, data, out_dir, progress, kept) -> Outcome``; one
that needs no data leaves ``data`` out and has no such flag, one that cannot be resumed ``kept``.

One trap: a ValueError is taken for bad input and becomes one sentence and status 2, even where it
is a bug. ``python -X dev -m PROGRAMS ...`` shows the traceback instead.
"""

import errno
import importlib
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from meanfield import checks, compiled, flags, halting, listing, processes, running, shortage

VERBS = ("show", "draw", "compare")
UNSAVED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM),
)
"""What a disk can say against a save."""


class Outcome(NamedTuple):
    """What a program hands back.

    Attributes:
        arrays: The record: a tree of dicts, tuples and NamedTuples of arrays.
        report: The text of ``report.md``, to which the provenance is added.
        summary: A few lines to print.
        data_checksums: The checksum of each data set used, by its name.
        seeds: The seeds used.
    """

    arrays: dict[str, Any]
    report: str
    summary: str
    data_checksums: dict[str, str]
    seeds: list[int]


def main(
    programs: Mapping[str, str],
    arguments: Sequence[str] | None = None,
    /,
    *,
    prog: str,
    kind: str,
    spread: bool = False,
) -> int:
    """The exit status of a command line, after doing what it says.

    Args:
        programs: The module of each program, by its name.
        arguments: The words after ``prog``; those of this process by default.
        prog: How the user calls the front, say "python -m experiments".
        kind: What a program is, say "experiment".
        spread: Whether several processes may run one together; the flag ``--distributed`` says so.

    >>> main({}, ["show"], prog="python -m experiments", kind="experiment")
    2
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(listing.listing(programs, prog=prog, kind=kind))
        elif words[0] in VERBS:
            print(_past(programs, words))
        else:
            print(_answer(programs, words, prog=prog, kind=kind, spread=spread), end="")
    except processes.Over as over:
        return over.status
    except ValueError as error:
        if in_development():
            raise
        print("error:", _sentence(error), file=sys.stderr)
        return 2
    except shortage.OutOfMemoryError as error:
        if in_development():
            raise
        print("error:", _sentence(error), file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in UNSAVED:
            raise
        print(
            f"error: the run could not be saved: {_sentence(error)}; "
            "make room, or write to another place",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as error:
        said = " ".join(_notes(error)) or "nothing was written"
        print(f"\ninterrupted: {said}", file=sys.stderr)
        return error.status if isinstance(error, halting.Halted) else 130
    finally:
        processes.leave()
    return 0


def end(front: Callable[[], int], /) -> NoReturn:
    """Ends the process with the exit status of ``front``, whatever its threads still compute.

    Args:
        front: The command line of this process.

    Raises:
        SystemExit: With that status.

    >>> end(lambda: 0)
    Traceback (most recent call last):
    SystemExit: 0
    """
    try:
        status = front()
    except Exception as error:  # noqa: BLE001 (shown as Python itself would)
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    others = [thread for thread in threading.enumerate() if thread.daemon and thread.is_alive()]
    if status != 0 and others:
        # A failed run abandons its threads. One that computes in XLA while the interpreter is
        # taken down aborts the process: "terminate called ...", and status 134 for 130.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def in_development() -> bool:
    """Whether Python runs in its development mode, ``-X dev``, where errors keep their traceback.

    >>> in_development() == sys.flags.dev_mode
    True
    """
    return sys.flags.dev_mode


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _past(programs: Mapping[str, str], words: list[str]) -> str:
    # Neither matplotlib nor the programs are loaded for those who run one.
    from meanfield import past

    def program(name: str) -> Any:
        return importlib.import_module(programs[name]) if name in programs else None

    return past.answer(words, out=running.place("compare", None), program=program)


def _answer(
    programs: Mapping[str, str], words: list[str], *, prog: str, kind: str, spread: bool
) -> str:
    """What to print of a run."""
    origin, name, rest = _origin(words)
    checks.choice(kind, name, programs)
    program = importlib.import_module(programs[name])
    presets = origin.presets(program.PRESETS) if origin else program.PRESETS
    choices = _choices(program, presets, rest, prog=f"{prog} {words[0]}", spread=spread)
    again, saves = f"{prog} {shlex.join(words)}", running.takes(program, "kept")
    with (
        shortage.told(choices.config),
        halting.heard(saves=saves) as stopping,
        processes.together(choices.distributed),
    ):
        return running.run(program, name, choices, origin, stopping=stopping, again=again)


def _origin(words: list[str]) -> tuple[Any, str, list[str]]:
    """The run to repeat or None, the name of the program, and the flags."""
    if words[0] != "--from":
        return None, words[0], words[1:]
    from meanfield import past

    origin = past.origin(words)
    return origin, origin.run.manifest["experiment"], words[2:]


def _sentence(error: BaseException) -> str:
    return "; ".join(" ".join(str(part).split()) for part in (error, *_notes(error)))


def _choices(
    program: Any, presets: Mapping[str, Any], words: list[str], *, prog: str, spread: bool
) -> flags.Choices:
    choices = flags.parse(
        words,
        presets=presets,
        prog=prog,
        summary=program.SUMMARY,
        data=running.takes(program, "data"),
        spread=spread,
        resume=running.takes(program, "kept"),
    )
    if choices.cache is not None:
        compiled.keep(choices.cache)
    return choices
