"""Figures of a run drawn again, from its record and the choices in its manifest alone.

One trap: a figure half written must not take the place of a whole one. All are drawn aside first,
and then each replaces the one of its name at once.
"""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meanfield import report, store
from meanfield.past import repeat


class Recorded(dict[str, Any]):
    """The arrays of a record, which name one that is missing.

    >>> Recorded({"curves": {"loss": 1.0}})["curves"]["risk"]
    Traceback (most recent call last):
    meanfield.past.redraw.MissingArrayError: 'curves/risk'
    """

    def __init__(self, arrays: Any, *, within: str = ""):
        self.within = within
        super().__init__(
            (name, Recorded(node, within=f"{within}{name}/") if isinstance(node, dict) else node)
            for name, node in arrays.items()
        )

    def __missing__(self, name: object) -> Any:
        raise MissingArrayError(f"{self.within}{name}")


class MissingArrayError(KeyError):
    """A record has no array of that name."""


def redraw(
    run: store.Run, program: Any, /, *, directory: str | Path, out: Path | None = None
) -> list[Path]:
    """The figures of a run, after drawing them once more.

    Args:
        run: The run.
        program: The module that ran it, with PRESETS and ``draw(arrays, config, out_dir)``.
        directory: Where it lies.
        out: A new or empty directory for them; that of the run if None.

    Raises:
        ValueError: If the program draws nothing, or the run is of another version of it, which
            drew from other arrays or choices.

    >>> redraw(store.Run({}, {"experiment": "demo"}), None, directory="run")
    Traceback (most recent call last):
    ValueError: run is a run of 'demo', which no program here knows how to draw
    """
    name = run.manifest["experiment"]
    if program is None:
        raise ValueError(
            f"{directory} is a run of {name!r}, which no program here knows how to draw"
        )
    if not hasattr(program, "draw"):
        raise ValueError(f"{name} does not draw from its record: run it again for new figures")
    config = repeat.configuration(run.manifest, type(program.PRESETS["default"]))
    target = Path(directory) if out is None else store.vacant(out)
    with tempfile.TemporaryDirectory() as aside:
        _drawn(run, program, config, aside=Path(aside), directory=directory)
        return _placed(sorted(Path(aside).iterdir()), target)


def _drawn(
    run: store.Run, program: Any, config: Any, *, aside: Path, directory: str | Path
) -> None:
    try:
        program.draw(Recorded(run.arrays), config, aside)
    except MissingArrayError as missing:
        told = report.facts(run.manifest)
        version = run.manifest["versions"].get("meanfield", "an unknown version")
        raise ValueError(
            f"the record in {directory} has no array {missing}, which its figures are drawn from: "
            f"it was made by meanfield {version} (commit {told['commit']}); run it again with "
            f"--from {directory}"
        ) from None


def _placed(drawn: Iterable[Path], target: Path) -> list[Path]:
    target.mkdir(parents=True, exist_ok=True)
    placed = []
    for figure in drawn:
        # The temporary directory may lie on another file system: copied beside, then renamed.
        with store.replacing(target / figure.name) as temporary:
            shutil.copyfile(figure, temporary)
        placed.append(target / figure.name)
    return placed
