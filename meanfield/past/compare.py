"""Several runs side by side: what differs in where they come from, their numbers and curves.

One trap: the same number from other versions, another commit or another device is another
measurement; the table of differences says so before any number does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from meanfield import plots, report, store
from meanfield.past import leaves, overlay

FIGURE = "curves.png"


class Comparison(NamedTuple):
    """What a comparison found.

    Attributes:
        arrays: The curves that the runs have in common, as a record.
        differences: What differs between the manifests, by name: a text for each run.
        numbers: The numbers of the records and the ends of the curves, by name; None where there
            is none.
        text: The report.
    """

    arrays: dict[str, Any]
    differences: dict[str, list[str]]
    numbers: dict[str, list[bool | int | float | None]]
    text: str


def compare(runs: Mapping[str, store.Run], /, *, out_dir: Path) -> Comparison:
    """Compares runs, and draws the curves they have in common into ``out_dir``.

    Args:
        runs: The runs by their names.
        out_dir: Where the figure goes.

    >>> import tempfile
    >>> run = store.Run({"steps": 12}, {"experiment": "demo"})
    >>> compare({"a": run, "b": run}, out_dir=Path(tempfile.mkdtemp())).numbers
    {'steps': [12, 12]}
    """
    curves = overlay.common_curves(runs)
    if curves:
        plots.save_figure(overlay.draw_overlay(curves, list(runs)), out_dir / FIGURE)
    differences = _differences([_facts(run) for run in runs.values()])
    numbers = _numbers(runs) | _ends(curves)
    arrays = {
        name.replace("/", " "): {
            str(at): {"x": line.x, "values": line.values} for at, line in enumerate(lines)
        }
        for name, lines in curves.items()
    }
    text = _text(list(runs), differences, numbers, list(curves))
    return Comparison(arrays=arrays, differences=differences, numbers=numbers, text=text)


def _facts(run: store.Run) -> dict[str, str]:
    """Where a run comes from, in words, choice by choice and version by version."""
    manifest = run.manifest
    told = report.facts(manifest)
    facts = {name: told[name] for name in ("experiment", "commit")} | {"seeds used": told["seeds"]}
    facts |= {name: report.choice(value) for name, value in report.choices(manifest).items()}
    for group, word in (("versions", ""), ("data", "data: ")):
        parts = manifest.get(group) or {}
        facts |= {f"{word}{name}": str(value)[:12] for name, value in parts.items()}
    facts |= {name: told[name] for name in ("platform", "devices", "precision", "wall time")}
    return facts | {"record, sha256": str((manifest.get("record") or {}).get("sha256"))[:12]}


def _differences(facts: list[dict[str, str]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for one in facts for name in one)
    rows = {name: [one.get(name, "none") for one in facts] for name in names}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def _numbers(runs: Mapping[str, store.Run]) -> dict[str, list[bool | int | float | None]]:
    found = [leaves.scalars(run.arrays) for run in runs.values()]
    names = sorted({name for one in found for name in one})
    return {name: [one.get(name) for one in found] for name in names}


def _ends(curves: Mapping[str, list[overlay.Curve]]) -> dict[str, list[bool | int | float | None]]:
    return {
        f"{name} at the last of {lines[0].axis}": [
            float(np.mean(line.values[:, -1])) if len(line.values) else None for line in lines
        ]
        for name, lines in curves.items()
    }


def _text(
    names: list[str],
    differences: Mapping[str, list[str]],
    numbers: Mapping[str, list[Any]],
    curves: list[str],
) -> str:
    sections = ["# " + " and ".join(names), "## What differs"]
    sections.append(_table(["fact", *names], differences) or "Nothing.")
    if numbers:
        sections += ["## Numbers", _table(["number", *names], numbers)]
    if curves:
        caption = (
            "What the runs have in common: the mean over all other dimensions, seeds among them, "
            "and the range from least to greatest."
        )
        sections += ["## Curves", f"![{caption}]({FIGURE})", f"*{caption}*"]
        if len(curves) > overlay.PANELS:
            sections.append(f"Not drawn: {', '.join(curves[overlay.PANELS :])}.")
    return "\n\n".join(sections) + "\n"


def _table(header: list[str], rows: Mapping[str, list[Any]]) -> str:
    cells = [[name, *("" if one is None else one for one in row)] for name, row in rows.items()]
    return report.table(header, cells, digits=4) if rows else ""
