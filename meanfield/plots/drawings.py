"""Drawings: curves over seeds, clouds of particles, rates on logarithmic axes.

One trap: what is drawn is not what is reported. Means and extremes over seeds are all the
arithmetic there is; fits and projections come ready from their own rooms.
"""

import fractions
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Num
from matplotlib import ticker
from matplotlib.axes import Axes

from meanfield.plots import canvas


@runtime_checkable
class PowerLaw(Protocol):
    """A fitted line log y = intercept + slope · log x, with an interval for the slope."""

    @property
    def slope(self) -> float:
        """The exponent."""
        ...

    @property
    def low(self) -> float:
        """The lower end of its interval."""
        ...

    @property
    def high(self) -> float:
        """The upper end of its interval."""
        ...

    @property
    def intercept(self) -> float:
        """The natural logarithm of y where x = 1."""
        ...


def draw_curves(
    ax: Axes,
    x: Float[np.ndarray, " t"],
    values: Float[np.ndarray, "s t"],
    /,
    *,
    label: str,
    color: str,
    band: bool = True,
) -> None:
    """Draws the mean over seeds as a line and the range from least to greatest as a band.

    Args:
        ax: Where to draw.
        x: The abscissa.
        values: One row for each seed; a seed that stopped early ends in NaN.
        label: What the legend calls the line.
        color: Of line and band.
        band: Whether to draw the band.

    >>> draw_curves(
    ...     canvas.panels()[1][0], np.arange(3.0), np.ones((2, 3)), label="8 heads", color="C0"
    ... )
    """
    # A mean over the seeds that are left would jump where one stops; the line ends there instead.
    ax.plot(x, values.mean(axis=0), color=color, linewidth=1.6, label=label)
    if band and len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def draw_clouds(
    axes: Sequence[Axes],
    clouds: Sequence[Float[np.ndarray, "_ 2"]],
    /,
    *,
    titles: Sequence[str],
    label: str | None = None,
    color: str = "#31688e",
    size: float = 10.0,
    view: Float[np.ndarray, "q 2"] | None = None,
) -> None:
    """Draws a cloud of points in each panel, all panels within the same limits.

    Call it again on the same panels to lay another cloud over the first.

    Args:
        axes: One panel for each cloud.
        clouds: Points in one fixed plane, of any number in each panel.
        titles: What stands over each panel, say its time.
        label: What the legend calls the cloud.
        color: Of the points.
        size: Area of a point, in square points.
        view: Points that must be in view too: the frames of an animation agree if all get the same.

    Raises:
        ValueError: If there are not as many panels and titles as clouds.

    >>> draw_clouds(canvas.panels()[1], [np.zeros((4, 2))], titles=["time 0"])
    """
    if not len(axes) == len(clouds) == len(titles):
        raise ValueError(
            f"axes and titles must be one for each cloud, got {len(axes)} axes and "
            f"{len(titles)} titles for {len(clouds)} clouds"
        )
    for ax, cloud, title in zip(axes, clouds, titles, strict=True):
        ax.scatter(
            cloud[:, 0], cloud[:, 1], s=size, color=color, alpha=0.6, linewidths=0, label=label
        )
        ax.set_title(title, fontsize=10)
        if view is not None:
            ax.update_datalim(view)
    _common_limits(axes)


def draw_rate(
    ax: Axes,
    x: Num[np.ndarray, " x"],
    y: Float[np.ndarray, "s x"],
    fit: PowerLaw,
    /,
    *,
    expected: float | None = None,
    because: str = "theory",
    name: str = "seeds",
    color: str = "#31688e",
) -> None:
    """Draws values against width, or against steps, on logarithmic axes with the fitted power law.

    Args:
        ax: Where to draw.
        x: The abscissa, positive.
        y: One row for each seed, positive.
        fit: The fitted power law, with an interval for its slope.
        expected: The slope to compare with, drawn as a dashed line through the middle of the fit.
        because: What the legend calls that slope.
        name: What the legend calls the points.
        color: Of points and fit.

    >>> from meanfield import rates
    >>> x, y = np.array([1.0, 2.0, 4.0]), np.array([[1.0, 0.7, 0.5]])
    >>> draw_rate(canvas.panels()[1][0], x, y, rates.log_log_slope(x, y), expected=-0.5)
    """
    ends = np.array([x.min(), x.max()])
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.plot(
        np.broadcast_to(x, y.shape).ravel(),
        y.ravel(),
        "o",
        color=color,
        alpha=0.55,
        ms=4.5,
        markeredgewidth=0,
        label=name,
    )
    slope = f"slope {_signed(fit.slope)}  [{_signed(fit.low)}, {_signed(fit.high)}]"
    ax.plot(ends, np.exp(fit.intercept) * ends**fit.slope, color=color, linewidth=1.6, label=slope)
    if expected is not None:
        middle = np.sqrt(ends.prod())
        line = np.exp(fit.intercept) * middle**fit.slope * (ends / middle) ** expected
        label = f"{because}: slope {_ratio(expected)}"
        ax.plot(ends, line, "--", color=canvas.INK, linewidth=1.1, label=label)
    # The widths that were run, and no powers of two between them.
    ax.set_xticks(np.unique(x), labels=[f"{place:.3g}" for place in np.unique(x)])
    ax.set_xticks([], minor=True)
    if y.max() < 100 * y.min():
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())


def _common_limits(axes: Sequence[Axes]) -> None:
    corners = np.concatenate([ax.dataLim.get_points() for ax in axes])
    corners = corners[np.isfinite(corners).all(axis=1)]
    if not len(corners):
        return
    low, high = corners.min(axis=0), corners.max(axis=0)
    # Square panels of one scale: distances on paper are distances of particles.
    reach = 0.55 * max((high - low).max(), 1e-12)
    (left, bottom), (right, top) = (low + high) / 2 - reach, (low + high) / 2 + reach
    for ax in axes:
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.set_aspect("equal", adjustable="box")
        ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
        ax.yaxis.set_major_locator(ticker.MaxNLocator(4))


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "\N{MINUS SIGN}")


def _ratio(number: float) -> str:
    exact = fractions.Fraction(number).limit_denominator(6)
    return str(exact).replace("-", "\N{MINUS SIGN}") if float(exact) == number else _signed(number)
