"""Figures in one style: panels, colours, legends, and files of them.

Figures are ``matplotlib.figure.Figure`` objects and never the current figure of ``pyplot``: they
need no display, and no drawing depends on the one before.

One trap: matplotlib signs its files with its version; ``save_figure`` leaves that out, so equal
figures are equal bytes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import colormaps, colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#222222", "#8a8a8a"
DPI = 150


def panels(
    rows: int = 1, columns: int = 1, *, width: float = 4.2, height: float = 3.0, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with panels in one style, and its panels row by row.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        width: Width of one panel in inches.
        height: Height of one panel in inches.
        share: One pair of axes for all panels, its numbers on the outside only.

    >>> len(panels(1, 3)[1])
    3
    """
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    axes = list(grid.flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(FAINT)
        ax.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9)
        ax.grid(color="#e6e6e6", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.xaxis.label.set_size(10)
        ax.yaxis.label.set_size(10)
        ax.title.set_size(10)
    return figure, axes


def sequential_colors(count: int) -> list[str]:
    """Colours for an ordered family, from light to dark, told apart without colour vision too.

    Args:
        count: How many.

    >>> sequential_colors(2)
    ['#6ece58', '#440154']
    """
    # The yellow end of viridis is too pale for a line on white.
    places = np.linspace(0.78, 0.0, count) if count > 1 else np.array([0.25])
    return [colors.to_hex(color) for color in colormaps["viridis"](places)]


def draw_legend(ax: Axes, *, title: str | None = None, beside: bool = True) -> None:
    """Draws the legend beside the panel, where it hides no data, or in its emptiest corner.

    Args:
        ax: The panel.
        title: What the entries have in common.
        beside: To the right of the panel; otherwise within it.

    >>> _, (ax,) = panels()
    >>> _ = ax.plot([0, 1], label="8")
    >>> draw_legend(ax, title="heads")
    """
    anchor = (1.0, 0.5) if beside else None
    legend = ax.legend(
        title=title,
        loc="center left" if beside else "best",
        bbox_to_anchor=anchor,
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def save_figure(figure: Figure, path: Path, /) -> Path:
    """Saves a figure as a PNG file whose bytes depend on the figure alone; gives the path back.

    Args:
        figure: The figure.
        path: The file, ending in .png.

    Raises:
        ValueError: If the path ends otherwise.

    >>> import tempfile
    >>> save_figure(panels()[0], Path(tempfile.mkdtemp(), "a.png")).name
    'a.png'
    """
    if path.suffix != ".png":
        raise ValueError(f"a figure must be saved as .png, got {path.name}")
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def save_animation(figures: Iterable[Figure], path: Path, /, *, milliseconds: int = 150) -> Path:
    """Saves figures of one size as the frames of an endless GIF; gives the path back.

    Args:
        figures: The frames; a generator keeps only one in memory.
        path: The file, ending in .gif.
        milliseconds: How long a frame stays; the last one stays for ten times as long.

    Raises:
        ValueError: If there is no frame, or the path ends otherwise.

    >>> import tempfile
    >>> save_animation([panels()[0]], Path(tempfile.mkdtemp(), "a.gif")).name
    'a.gif'
    """
    if path.suffix != ".gif":
        raise ValueError(f"an animation must be saved as .gif, got {path.name}")
    # Pillow comes with matplotlib, but only animations need it.
    from PIL import Image

    frames: list[Image.Image] = []
    for figure in figures:
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        # One palette for all frames: colours do not flicker. An octree keeps white white.
        frames.append(
            image.quantize(palette=frames[0], dither=Image.Dither.NONE)
            if frames
            else image.quantize(method=Image.Quantize.FASTOCTREE)
        )
    if not frames:
        raise ValueError("an animation must have at least one frame, got none")
    stay = [milliseconds] * (len(frames) - 1) + [10 * milliseconds]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=stay, loop=0)
    return path
