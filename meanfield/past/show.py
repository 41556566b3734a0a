"""A run in a screenful: where it comes from, what is in it, and how its report begins.

One trap: text from a file can hold signs that drive a terminal; what is shown has only such as can
be read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meanfield import report, store
from meanfield.past import leaves

LINES, BYTES, ARRAYS = 12, 4000, 40


def facts(
    run: store.Run, /, *, directory: str | Path, presets: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What :func:`shown` says, in the words of JSON.

    Args:
        run: The run.
        directory: Where it lies.
        presets: The configurations of its experiment by name, if they are known.

    >>> facts(store.Run({"loss": 1.0}, {"experiment": "demo"}), directory="run")["scalars"]
    {'loss': 1.0}
    """
    preset, changed = _nearest(report.choices(run.manifest), presets or {})
    return store.plain(
        {
            "directory": str(directory),
            "preset": preset,
            "changed": changed,
            "manifest": run.manifest,
            "arrays": {
                name: {"shape": array.shape, "dtype": str(array.dtype)}
                for name, array in leaves.flat(run.arrays).items()
            },
            "scalars": leaves.scalars(run.arrays),
        }
    )


def shown(
    run: store.Run, /, *, directory: str | Path, presets: Mapping[str, Any] | None = None
) -> str:
    """A summary of a run: provenance, choices, arrays, and the first lines of its report.

    Args:
        run: The run.
        directory: Where it lies; its ``report.md`` is looked for there.
        presets: The configurations of its experiment by name, if they are known.

    >>> run = store.Run({"loss": 1.0}, {"experiment": "demo"})
    >>> print(shown(run, directory="run").splitlines()[2])
    experiment     demo
    """
    found = facts(run, directory=directory, presets=presets)
    lines = [str(directory), "", *_aligned(report.facts(run.manifest))]
    if found["preset"] is not None:
        lines += _aligned({"preset": found["preset"] + (", but" if found["changed"] else "")})
    lines += _aligned(
        {f"  {name}": report.choice(value) for name, value in found["changed"].items()}
    )
    lines += ["", f"{len(found['arrays'])} arrays"]
    numbers = found["scalars"]
    about = {
        f"  {name}": str(numbers[name])
        if name in numbers
        else f"{' × '.join(map(str, array['shape'])) or 'one'}  {array['dtype']}"
        for name, array in found["arrays"].items()
    }
    lines += _aligned(dict(list(about.items())[:ARRAYS]))
    if len(about) > ARRAYS:
        lines.append(f"  and {len(about) - ARRAYS} more")
    beginning = _beginning(Path(directory) / "report.md")
    text = "\n".join([*lines, *(["", "report.md", *beginning] if beginning else [])])
    return "".join(sign for sign in text if sign.isprintable() or sign == "\n")


def _nearest(
    choices: Mapping[str, Any], presets: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """The preset that the fewest choices differ from, and those choices."""
    plain = {name: store.plain(preset) for name, preset in presets.items()}
    changed = {
        name: {
            field: value
            for field, value in choices.items()
            if field not in preset or preset[field] != value
        }
        for name, preset in plain.items()
    }
    if not changed:
        return None, dict(choices)
    nearest = min(changed, key=lambda name: len(changed[name]))
    return nearest, changed[nearest]


def _aligned(rows: Mapping[str, str]) -> list[str]:
    width = max([13, *map(len, rows)])
    return [f"{name:{width}}  {text}" for name, text in rows.items()]


def _beginning(page: Path) -> list[str]:
    if page.is_symlink() or not page.is_file():
        return []
    with page.open("rb") as file:
        text = file.read(BYTES).decode("utf-8", errors="replace")
    lines = text.strip().splitlines()
    return [f"  {line}".rstrip() for line in lines[:LINES]]
