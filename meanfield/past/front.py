"""The words ``show DIR``, ``draw DIR`` and ``compare DIR DIR ...``, as the text that answers.

One trap: a directory is what the user typed and nothing else; none is taken from a manifest.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meanfield import report, store
from meanfield.past import show
from meanfield.past.compare import compare
from meanfield.past.redraw import redraw


def answer(words: Sequence[str], /, *, out: Path, program: Callable[[str], Any]) -> str:
    """What to print for ``show``, ``draw`` and ``compare``; with ``--json`` one line of it.

    Args:
        words: The words of the command line, one of the three first.
        out: Where a comparison goes unless ``--out`` says otherwise.
        program: The module of an experiment by its name; None for an unknown one.

    Raises:
        ValueError: If the words make no sense, or a directory is no run.

    >>> answer(["show"], out=Path("runs"), program=lambda name: None)
    Traceback (most recent call last):
    ValueError: show takes one directory of a run, got 0
    """
    directories, place, as_json = _read(words[0], words[1:])
    if words[0] != "compare":
        if len(directories) != 1:
            raise ValueError(f"{words[0]} takes one directory of a run, got {len(directories)}")
        run = store.load_run(directories[0])
        given = program(run.manifest["experiment"])
        if words[0] == "draw":
            return _drawn(redraw(run, given, directory=directories[0], out=place), as_json=as_json)
        say = show.facts if as_json else show.shown
        told = say(run, directory=directories[0], presets=given and given.PRESETS)
        return json.dumps(told) if isinstance(told, dict) else told
    return _compared(directories, place or out, as_json=as_json)


def _drawn(figures: list[Path], *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"figures": [str(figure) for figure in figures]})
    return "\n".join(f"figure: {figure}" for figure in figures)


def _compared(directories: list[str], out: Path, *, as_json: bool) -> str:
    if len(set(directories)) < 2:
        raise ValueError(f"compare takes two or more directories of runs, got {directories}")
    runs = {directory: store.load_run(directory) for directory in directories}
    with store.open_run(out, experiment="compare", config={"runs": directories}) as draft:
        found = compare(runs, out_dir=draft.directory)
        sums = {name: run.manifest["record"]["sha256"] for name, run in runs.items()}
        manifest = store.save_record(draft, found.arrays, data=sums)
        with store.replacing(draft.directory / "report.md") as page:
            page.write_text(f"{found.text}\n{report.provenance(manifest)}\n", encoding="utf-8")
    if as_json:
        told = {"report": out / "report.md", "runs": directories}
        told |= {"differences": found.differences, "numbers": found.numbers}
        return json.dumps(store.plain(told))
    return f"{found.text}\nreport: {out / 'report.md'}"


def _read(verb: str, words: Sequence[str]) -> tuple[list[str], Path | None, bool]:
    directories, rest, as_json, out = [], list(words), False, None
    while rest:
        word = rest.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--out" and rest and verb != "show":
            out = Path(rest.pop(0))
        elif word.startswith("--"):
            takes = "--json" if verb == "show" else "--out DIR and --json"
            raise ValueError(f"{verb} takes directories of runs and {takes}, got {word}")
        else:
            directories.append(word)
    return directories, out, as_json
