import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from meanfield import plots


def drawn(rows=1, columns=1):
    figure, axes = plots.panels(rows, columns, width=2.0, height=1.5)
    for ax in axes:
        plots.draw_curves(ax, np.arange(4.0), np.eye(2, 4), label="a", color="#440154")
    return figure


def test_panels_are_row_by_row():
    """Closed form: the panel after the first row starts the second, below it."""
    figure, axes = plots.panels(2, 3, width=2.0, height=1.5)
    assert len(axes) == 6
    np.testing.assert_allclose(figure.get_size_inches(), [6.0, 3.0])
    assert axes[3].get_position().y1 < axes[0].get_position().y0


def test_colors_darken_in_order():
    """Closed form: luminance falls strictly, so order survives print and any colour vision."""
    rgb = np.array([colors.to_rgb(name) for name in plots.sequential_colors(6)])
    luminance = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < -0.04).all()
    # Readable as a line on white.
    assert luminance.max() < 0.75
    assert len(plots.sequential_colors(1)) == 1


def test_figures_are_reproducible(tmp_path):
    """Invariance: the same drawing gives the same bytes, and no version is in them."""
    first = plots.save_figure(drawn(), tmp_path / "a.png").read_bytes()
    assert plots.save_figure(drawn(), tmp_path / "b.png").read_bytes() == first
    with Image.open(tmp_path / "a.png") as image:
        assert not {"Software", "Date"} & set(image.info)


def test_legend_lies_beside_the_data():
    """Closed form: the legend begins where the panel ends."""
    figure = drawn()
    (ax,) = figure.axes
    plots.draw_legend(ax, title="heads")
    figure.canvas.draw()
    legend = ax.get_legend()
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert legend.get_title().get_text() == "heads"


def test_animation(tmp_path):
    """Independent library: Pillow reads back a picture of that size, its white still white."""
    path = plots.save_animation([drawn()], tmp_path / "a.gif")
    with Image.open(path) as animation:
        assert animation.size == (300, 225)
        assert min(animation.convert("RGB").getpixel((0, 0))) >= 253


def test_animation_keeps_different_frames(tmp_path):
    """Closed form: three different pictures are three frames, the last held ten times as long."""

    def frames():
        for place in range(3):
            figure, (ax,) = plots.panels(width=1.5, height=1.5)
            ax.plot([0, 1], [0, place])
            yield figure

    with Image.open(plots.save_animation(frames(), tmp_path / "a.gif", milliseconds=50)) as found:
        durations = []
        for frame in range(found.n_frames):
            found.seek(frame)
            durations.append(found.info["duration"])
    assert durations == [50, 50, 500]


@pytest.mark.parametrize(
    ("save", "sentence"),
    [
        (lambda folder: plots.save_figure(drawn(), folder / "a.pdf"), "as .png, got a.pdf"),
        (lambda folder: plots.save_animation([drawn()], folder / "a.mp4"), "as .gif, got a.mp4"),
        (lambda folder: plots.save_animation([], folder / "a.gif"), "at least one frame"),
    ],
)
def test_refuses_what_it_cannot_save(tmp_path, save, sentence):
    """House rule: one sentence with what was got and what is expected; nothing is written."""
    with pytest.raises(ValueError, match=sentence.replace(".", "[.]")):
        save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_pyplot_is_never_imported():
    """House rule: no global figures; importing and drawing leaves pyplot out of the process."""
    program = (
        "import sys, numpy as np; from meanfield import plots;"
        "ax, x, y = plots.panels()[1][0], np.arange(2.0), np.ones((1, 2));"
        "plots.draw_curves(ax, x, y, label='a', color='k');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
