"""Curves that several runs have in common, one panel each.

An axis is a one-dimensional, strictly increasing array of a record; another array is a curve over
it if exactly one of its dimensions is as long. Times, epochs and steps are preferred.

One trap: lengths agree by chance, say three widths and three seeds. What could be over two axes, or
lies along different ones in different runs, is not drawn.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from meanfield import plots, store
from meanfield.past import leaves

TIMES = ("times", "epochs", "steps")
PANELS, DECADES = 12, 2.0


class Curve(NamedTuple):
    """An array of one run over an axis of it.

    Attributes:
        axis: The name of the axis.
        x: Its values.
        values: One row for each place in the other dimensions, seeds among them.
    """

    axis: str
    x: Num[np.ndarray, " t"]
    values: Num[np.ndarray, "s t"]


def common_curves(runs: Mapping[str, store.Run], /) -> dict[str, list[Curve]]:
    """The curves that all runs have in common, by their name: one for each run, in order.

    Args:
        runs: The runs by their names.

    >>> one = store.Run({"times": np.arange(3.0), "loss": np.ones((2, 3))}, {})
    >>> common_curves({"a": one, "b": one})["loss"][1].axis
    'times'
    """
    records = [leaves.flat(run.arrays) for run in runs.values()]
    found = {}
    for name in records[0] if records else ():
        if all(name in record for record in records):
            places = [_places(name, record) for record in records]
            place = _chosen(set.intersection(*places))
            if place is not None:
                found[name] = [_curve(record, name, *place) for record in records]
    return found


def draw_overlay(curves: Mapping[str, list[Curve]], names: list[str], /) -> Any:
    """A figure with a panel for each curve and a colour for each run; the mean, and the range.

    Args:
        curves: The curves that the runs have in common; the first twelve are drawn.
        names: What the legend calls the runs.

    >>> curve = Curve("times", np.arange(3.0), np.ones((2, 3)))
    >>> len(draw_overlay({"loss": [curve, curve]}, ["a", "b"]).axes)
    1
    """
    shown = dict(list(curves.items())[:PANELS])
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plots.panels(rows, columns)
    for ax, (name, lines) in zip(axes, shown.items(), strict=False):
        for label, color, line in zip(
            names, plots.sequential_colors(len(names)), lines, strict=True
        ):
            plots.draw_curves(ax, line.x, line.values, label=label, color=color)
        ax.set_title(name)
        ax.set_xlabel(lines[0].axis)
        if _wide([line.values for line in lines]):
            ax.set_yscale("log")
        if _wide([line.x for line in lines]):
            ax.set_xscale("log")
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    plots.draw_legend(axes[columns - 1])
    return figure


def _places(name: str, record: Mapping[str, np.ndarray]) -> set[tuple[str, int, int]]:
    """Each axis that an array may lie along, and in which of how many dimensions."""
    array = record[name]
    if array.dtype.kind not in "iuf" or _is_axis(array):
        return set()
    return {
        (axis, place, array.ndim)
        for axis, values in record.items()
        if axis.rpartition("/")[0] in ("", name.rpartition("/")[0]) and _is_axis(values)
        for place in range(array.ndim)
        if array.shape[place] == len(values)
    }


def _is_axis(array: np.ndarray) -> bool:
    return (
        array.ndim == 1
        and array.size > 1
        and array.dtype.kind in "iuf"
        and bool(np.all(np.isfinite(array)) and np.all(np.diff(array.astype(float)) > 0))
    )


def _chosen(places: set[tuple[str, int, int]]) -> tuple[str, int] | None:
    times = {place for place in places if place[0].rpartition("/")[2].endswith(TIMES)}
    among = sorted(times or places)
    if len({place for _, place, _ in among}) != 1 or (not times and len(among) > 1):
        return None
    return among[0][:2]


def _curve(record: Mapping[str, np.ndarray], name: str, axis: str, place: int) -> Curve:
    values = np.moveaxis(record[name], place, -1)
    return Curve(axis, record[axis], values.reshape(-1, values.shape[-1]))


def _wide(arrays: list[Any]) -> bool:
    """Whether positive numbers span so much that only a logarithmic scale shows them."""
    numbers = np.concatenate([np.ravel(array).astype(float) for array in arrays])
    numbers = numbers[np.isfinite(numbers)]
    if numbers.size == 0 or numbers.min() <= 0:
        return False
    return bool(np.log10(numbers.max() / numbers.min()) >= DECADES)
