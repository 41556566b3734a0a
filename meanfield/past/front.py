"""The words ``show DIR`` and ``compare DIR DIR ...`` of a command line, as the text that answers.

One trap: a directory is what the user typed and nothing else; none is taken from a manifest.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from meanfield import report, store
from meanfield.past import show
from meanfield.past.compare import compare


def answer(
    words: Sequence[str], /, *, out: Path, presets: Callable[[str], Mapping[str, Any]]
) -> str:
    """What to print for ``show`` and ``compare``; with ``--json`` one line of it.

    Args:
        words: The words of the command line, one of the two first.
        out: Where a comparison goes unless ``--out`` says otherwise.
        presets: The configurations of an experiment by its name; none for an unknown one.

    Raises:
        ValueError: If the words make no sense, or a directory is no run.

    >>> answer(["show"], out=Path("runs"), presets=lambda name: {})
    Traceback (most recent call last):
    ValueError: show takes one directory of a run, got 0
    """
    directories, out, as_json = _read(words[0], words[1:], out)
    if words[0] == "show":
        if len(directories) != 1:
            raise ValueError(f"show takes one directory of a run, got {len(directories)}")
        run = store.load_run(directories[0])
        say = show.facts if as_json else show.shown
        told = say(run, directory=directories[0], presets=presets(run.manifest["experiment"]))
        return json.dumps(told) if isinstance(told, dict) else told
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


def _read(verb: str, words: Sequence[str], out: Path) -> tuple[list[str], Path, bool]:
    directories, rest, as_json = [], list(words), False
    while rest:
        word = rest.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--out" and rest and verb == "compare":
            out = Path(rest.pop(0))
        elif word.startswith("--"):
            takes = "--out DIR and --json" if verb == "compare" else "--json"
            raise ValueError(f"{verb} takes directories of runs and {takes}, got {word}")
        else:
            directories.append(word)
    return directories, out, as_json
