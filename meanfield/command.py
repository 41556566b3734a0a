"""The command line of programs that write run directories: one front for all of them.

    python -m PROGRAMS                  the list, one line each
    python -m PROGRAMS NAME [--preset P] [--out DIR] [--data PATH] [--quiet] [--cache DIR]
                            [--distributed [WHERE]] [--FIELD VALUE ...]

A program is a module with SUMMARY (a line of text), Config (a frozen dataclass), PRESETS (a dict of
them, one called "default") and ``run(config, *, data, out_dir, progress) -> Outcome``; one that
needs no data leaves ``data`` out and has no such flag.

One trap: a ValueError is taken for bad input and becomes one sentence and status 2, even where it
is a bug. ``python -X dev -m PROGRAMS ...`` shows the traceback instead.
"""

import ast
import datetime
import errno
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from meanfield import checks, compiled, flags, processes, report, store


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

    >>> main({}, [], prog="python -m experiments", kind="experiment")
    usage: python -m experiments NAME [--preset P] [--out DIR] [--FIELD VALUE ...]
    0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_listing(programs, prog, kind))
        else:
            checks.choice(kind, words[0], programs)
            program = importlib.import_module(programs[words[0]])
            choices = _choices(program, words[1:], prog=f"{prog} {words[0]}", spread=spread)
            with processes.together(choices.distributed):
                _run(program, words[0], choices)
    except processes.Over as over:
        return over.status
    except ValueError as error:
        if in_development():
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        print(f"error: the run could not be saved: {error}; make room there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
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


def _listing(programs: Mapping[str, str], prog: str, kind: str) -> str:
    lines = [f"usage: {prog} NAME [--preset P] [--out DIR] [--FIELD VALUE ...]"]
    if programs:
        width = max(map(len, programs))
        lines += ["", f"{kind}s:"]
        lines += [f"  {name:{width}}  {_summary(module)}" for name, module in programs.items()]
        lines += ["", f"{prog} NAME --help lists the flags of one of them, with their defaults."]
    return "\n".join(lines)


def _summary(module: str) -> str:
    # Read, not imported: a list should not wait for jax and every library behind it.
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"the program {module} is not there: restore it or take it off the list")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "SUMMARY" for target in targets):
                return ast.literal_eval(node.value)
    raise ValueError(f"the program {module} has no SUMMARY: write one as a literal line of text")


def _choices(program: Any, words: list[str], *, prog: str, spread: bool) -> flags.Choices:
    choices = flags.parse(
        words,
        presets=program.PRESETS,
        prog=prog,
        summary=program.SUMMARY,
        data=_takes_data(program),
        spread=spread,
    )
    if choices.cache is not None:
        compiled.keep(choices.cache)
    return choices


def _takes_data(program: Any) -> bool:
    return "data" in inspect.signature(program.run).parameters


def _run(program: Any, name: str, choices: flags.Choices) -> None:
    extra = {"data": choices.data} if _takes_data(program) else {}
    if not processes.leads():
        with tempfile.TemporaryDirectory() as aside:
            program.run(choices.config, out_dir=Path(aside), progress=False, **extra)
        return
    out = choices.out
    if out is None:
        # Local time: the name is for the one who started it.
        out = Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    with store.open_run(out, experiment=name, config=choices.config) as draft:
        outcome = program.run(
            choices.config, out_dir=draft.directory, progress=not choices.quiet, **extra
        )
        manifest = store.save_record(
            draft, outcome.arrays, seeds=outcome.seeds, data=outcome.data_checksums
        )
        with store.replacing(draft.directory / "report.md") as page:
            page.write_text(
                f"{outcome.report.rstrip()}\n\n{report.provenance(manifest)}\n", encoding="utf-8"
            )
    if not choices.quiet:
        print(f"\n{outcome.summary.rstrip()}\n")
    print(f"report: {out / 'report.md'}")
