"""What the record of ``vit_heads`` says, with intervals over seeds.

One trap: values of one seed share its draws, so widths are compared within each seed and the
interval is that of the seeds' differences, never of pooled points.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence import head_law
from meanfield import rates

HEADS_EVERY = 4
"""Of so many saves, the heads themselves are kept at one."""


class Difference(NamedTuple):
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


class Facts(NamedTuple):
    """What is fitted to the record.

    Attributes:
        last: Index of the last time that every run reached; all is compared there.
        last_heads: The same among the times at which heads are kept.
        loss: Widest minus narrowest, of log training loss averaged over time.
        accuracy: The same of training accuracy.
        distance: Slope of the head-law distance against the effective width, at the end.
        draws: The same at the start, where the heads are exactly i.i.d.
        change: Slope at the end minus slope at the start, seed by seed.
        gap: Slope of the gap between coupled paths against the nested width, at the end.
        solver: Relative change of the narrowest network's last loss at a tenth of the tolerance.
    """

    last: int
    last_heads: int
    loss: Difference
    accuracy: Difference
    distance: rates.Fit
    draws: rates.Fit
    change: Difference
    gap: rates.Fit | None
    solver: float


def facts(arrays: dict[str, Any]) -> Facts:
    """Everything that the figures and the report state."""
    heads, last = arrays["heads"], last_common(arrays)
    last_heads = last // HEADS_EVERY
    width = head_law.effective_width(heads)
    start, end = arrays["distance"][:, :, 0].T, arrays["distance"][:, :, last_heads].T
    gap = arrays["gap"][:, :, last_heads].T
    finer, loss = arrays["finer_loss"][last], arrays["loss"][0, 0, last]
    return Facts(
        last=last,
        last_heads=last_heads,
        loss=_widest_minus_narrowest(np.log(np.maximum(arrays["loss"], 1e-30)), arrays, last),
        accuracy=_widest_minus_narrowest(arrays["accuracy"], arrays, last),
        distance=rates.log_log_slope(width, end),
        draws=rates.log_log_slope(width, start),
        change=_over_seeds(_slopes(width, end) - _slopes(width, start)),
        gap=rates.log_log_slope(head_law.nested_width(heads), gap) if last_heads else None,
        solver=float(abs(finer - loss) / finer),
    )


def last_common(arrays: dict[str, Any]) -> int:
    """Index of the last time that every run reached: a run that diverged ends in NaN."""
    return int(np.sum(np.isfinite(arrays["loss"]).all(axis=(0, 1)))) - 1


def verdict(facts: Facts, *, completed: bool) -> tuple[bool | None, str]:
    """Whether a run agrees with "more heads, lower loss, higher accuracy", and why."""
    because = (
        "widest minus narrowest network, averaged over training time, seed by seed: log training "
        f"loss {_signed(facts.loss)}, training accuracy "
        f"{_signed(Difference(*(100 * value for value in facts.accuracy)))} points."
    )
    if not completed:
        return None, f"not every run completed; as far as all came, {because}"
    if facts.loss.high < 0 and facts.accuracy.low > 0:
        return True, because
    if facts.loss.low > 0 or facts.accuracy.high < 0:
        return False, because
    named = {"loss": facts.loss, "accuracy": facts.accuracy}
    open_ones = [name for name, value in named.items() if value.low <= 0 <= value.high]
    return None, f"{because} The interval of {' and '.join(open_ones)} holds 0: more seeds decide."


def interval(fit: rates.Fit | Difference) -> str:
    """A slope or a mean with its interval, in words."""
    value = fit.slope if isinstance(fit, rates.Fit) else fit.mean
    return f"{value:.2f} (95 % interval [{fit.low:.2f}, {fit.high:.2f}])"


def _signed(value: Difference) -> str:
    return f"{value.mean:+.2f} (95 % interval [{value.low:+.2f}, {value.high:+.2f}])"


def _widest_minus_narrowest(values: np.ndarray, arrays: dict[str, Any], last: int) -> Difference:
    times = arrays["times"][: last + 1]
    difference = (values[-1] - values[0])[:, : last + 1]
    if not last:
        return _over_seeds(difference[:, 0])
    return _over_seeds(np.trapezoid(difference, times, axis=-1) / (times[-1] - times[0]))


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.polyfit(np.log(x), np.log(y).T, 1)[0]


def _over_seeds(values: np.ndarray) -> Difference:
    band = rates.band(values[:, None])
    return Difference(float(band.mean[0]), float(band.low[0]), float(band.high[0]))
