"""Progress bars with a label, for solves that run inside one compiled program.

One trap: the label must stay out of the compiled program, or every label would compile it anew; it
is read when the bar is drawn.
"""

from typing import Any

import diffrax
import tqdm

_current: dict[str, str] = {"label": ""}


class ProgressBar(diffrax.TqdmProgressMeter):
    """A tqdm bar over the time of the solve, under the label set last."""

    @staticmethod
    def _init_bar() -> Any:
        return tqdm.tqdm(
            total=100,
            desc=_current["label"] or None,
            bar_format="{desc}{percentage:3.0f}% |{bar:30}| {elapsed}<{remaining}",
        )


def meter(label: str | None, /) -> diffrax.AbstractProgressMeter:
    """A progress bar under a label, or none.

    Args:
        label: The label, which may be empty; None for no bar.

    >>> type(meter(None)).__name__
    'NoProgressMeter'
    """
    if label is None:
        return diffrax.NoProgressMeter()
    _current["label"] = f"{label} " if label else ""
    return ProgressBar(refresh_steps=5)
