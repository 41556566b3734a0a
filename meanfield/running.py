"""One run of a program: its directory, what it keeps meanwhile, its report and what it prints.

    runs/NAME           the finished run
    runs/.NAME.kept     until then: what a resumed run need not compute again

One trap: several processes may run one program together, and each keeps what it has computed in a
directory of its own; a resumed run reads them all.
"""

import contextlib
import datetime
import glob
import inspect
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from meanfield import kept, processes, report, store


def takes(program: Any, name: str, /) -> bool:
    """Whether ``run`` of a program takes this argument.

    Args:
        program: The module.
        name: The argument, say "data".

    >>> import types
    >>> takes(types.SimpleNamespace(run=lambda config, *, data: None), "data")
    True
    """
    return name in inspect.signature(program.run).parameters


def place(name: str, out: Path | None, /) -> Path:
    """The directory of a run: the one given, or a new name.

    Args:
        name: The program.
        out: What the user said.

    >>> place("pde", Path("here")).name
    'here'
    """
    # Local time: the name is for the one who started it.
    return out or Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def run(
    program: Any,
    name: str,
    choices: Any,
    origin: Any,
    /,
    *,
    stopping: Callable[[], bool],
    again: str,
) -> str:
    """What to print of a run, after running a program into its directory.

    Args:
        program: The module.
        name: Its name.
        choices: What the user chose (``flags.Choices``).
        origin: The run to repeat (``past.origin``), or None.
        stopping: Whether the run is to save itself and stop.
        again: The command line, to be shown if it can be resumed.

    Raises:
        ValueError: If the directory has files in it, or is of another run.

    >>> import types
    >>> choices = types.SimpleNamespace(resume=True, out=None)
    >>> run(None, "pde", choices, None, stopping=bool, again="")
    Traceback (most recent call last):
    ValueError: --resume goes on with the run of a directory, got none: add --out DIR
    """
    if choices.resume and choices.out is None:
        raise ValueError("--resume goes on with the run of a directory, got none: add --out DIR")
    extra = {"data": choices.data} if takes(program, "data") else {}
    out = place(name, choices.out)
    if not processes.leads():
        _follow(program, name, choices, extra, stopping)
        return ""
    if choices.resume and _is_complete(out, name, choices.config):
        return f"complete already: {out / 'report.md'}\n"
    with store.open_run(out, experiment=name, config=choices.config) as draft:
        final = draft.directory.parent / out.resolve().name
        with contextlib.ExitStack() as stack:
            if takes(program, "kept"):
                _sweep(final, draft.directory)
                mine = stack.enter_context(_keeping(final, name, choices, stopping, again))
                first, *later = mine.starts(draft.opening["started"])
                draft.opening.update(started=first, resumed=later)
                extra["kept"] = mine
            outcome = program.run(
                choices.config, out_dir=draft.directory, progress=not choices.quiet, **extra
            )
            manifest = _saved(draft, outcome)
    for left in (kept.beside(final), *_others(final, kept.beside(final))):
        shutil.rmtree(left, ignore_errors=True)
    if choices.json:
        return _line(name, out, manifest, outcome, origin) + "\n"
    said = "" if choices.quiet else f"\n{outcome.summary.rstrip()}\n\n"
    said += f"report: {out / 'report.md'}\n"
    return said + (f"record: {origin.verdict(manifest)['said']}\n" if origin else "")


def _saved(draft: store.Draft, outcome: Any) -> dict[str, Any]:
    """The manifest, after writing it with the record and the report."""
    manifest = store.save_record(
        draft, outcome.arrays, seeds=outcome.seeds, data=outcome.data_checksums
    )
    with store.replacing(draft.directory / "report.md") as page:
        text = f"{outcome.report.rstrip()}\n\n{report.provenance(manifest)}\n"
        page.write_text(text, encoding="utf-8")
    return manifest


def _follow(
    program: Any, name: str, choices: Any, extra: dict[str, Any], stopping: Callable[[], bool]
) -> None:
    """Runs a program in a process that does not lead."""
    with tempfile.TemporaryDirectory() as aside:
        # Without --out the processes do not know of each other's place.
        if takes(program, "kept") and choices.out:
            final = choices.out.resolve()
            mine = kept.beside(final, process=jax.process_index())
            _refuse_leftovers(choices, mine)
            extra["kept"] = _own(mine, choices, name, _others(final, mine), stopping)
        program.run(choices.config, out_dir=Path(aside), progress=False, **extra)


@contextlib.contextmanager
def _keeping(
    final: Path, name: str, choices: Any, stopping: Callable[[], bool], again: str
) -> Iterator[kept.Kept]:
    """What the run keeps, which stays if the block fails after anything was computed."""
    mine = kept.beside(final)
    _refuse_leftovers(choices, mine, *_others(final, mine))
    found = _own(mine, choices, name, _others(final, mine), stopping)
    try:
        yield found
    except BaseException as error:
        # Those that are there now: other processes may have begun after this one.
        if kept.holds(mine, *_others(final, mine)):
            out = str(choices.out or Path("runs") / final.name)
            words = shlex.join([*_without_place(shlex.split(again)), "--out", out, "--resume"])
            error.add_note(f"what was computed is kept; go on with: {words}")
        else:
            shutil.rmtree(mine, ignore_errors=True)
        raise


def _refuse_leftovers(choices: Any, *places: Path) -> None:
    if choices.resume:
        return
    for place in filter(kept.holds, places):
        raise ValueError(
            f"{place} is what an interrupted run of {choices.out} has kept: "
            "add --resume to go on with it, or remove it to begin anew"
        )


def _without_place(words: list[str]) -> list[str]:
    """The words of a command line but ``--resume`` and ``--out`` with its value."""
    found, skip = [], False
    for word in words:
        if not (skip or word == "--resume" or word.split("=")[0] == "--out"):
            found.append(word)
        skip = word == "--out"
    return found


def _own(
    mine: Path, choices: Any, name: str, others: tuple[Path, ...], stopping: Callable[[], bool]
) -> kept.Kept:
    if not choices.resume:
        # Nothing was computed in it.
        shutil.rmtree(mine, ignore_errors=True)
    found = kept.Kept(mine, siblings=others if choices.resume else (), stopping=stopping)
    found.same("experiment", name)
    found.same("configuration", choices.config)
    return found


def _others(final: Path, mine: Path) -> tuple[Path, ...]:
    """Where the other processes of a run keep theirs."""
    first = kept.beside(final)
    found = [first, *final.parent.glob(f"{glob.escape(first.name)}-[0-9]*")]
    return tuple(sorted(path for path in found if path != mine))


def _sweep(final: Path, draft: Path) -> None:
    """Removes what killed processes left half written, which the lock says nobody writes."""
    for partial in final.parent.glob(f".{glob.escape(final.name)}.partial-*"):
        if partial != draft and not (partial / "manifest.json").exists():
            shutil.rmtree(partial, ignore_errors=True)


def _is_complete(out: Path, name: str, config: Any) -> bool:
    if not (out / "manifest.json").is_file():
        return False
    before = store.load_run(out).manifest
    return before["experiment"] == name and before["config"] == store.plain(config)


def _line(name: str, out: Path, manifest: dict[str, Any], outcome: Any, origin: Any) -> str:
    from meanfield import past

    told = {"experiment": name, "directory": out, "wall_seconds": manifest["wall_seconds"]}
    told |= {what: out / what for what in ("report.md", "record.npz", "manifest.json")}
    told |= {"summary": outcome.summary, "scalars": past.scalars(outcome.arrays)}
    return json.dumps(store.plain(told | (origin.verdict(manifest) if origin else {})))
