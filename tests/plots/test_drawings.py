import numpy as np
import pytest
from scipy import stats

from meanfield import plots, rates


@pytest.fixture
def ax():
    return plots.panels()[1][0]


def test_curve_is_the_mean_and_its_band_the_range(ax):
    """Numpy loop: mean, least and greatest over seeds at each time."""
    values = np.random.default_rng(0).normal(size=(3, 5))
    plots.draw_curves(ax, np.arange(5.0), values, label="8 heads", color="#123456")
    (line,), (band,) = ax.lines, ax.collections
    np.testing.assert_allclose(line.get_ydata(), [np.mean(column) for column in values.T])
    assert line.get_label() == "8 heads"
    corners = band.get_paths()[0].vertices
    for time in range(5):
        at = corners[corners[:, 0] == time, 1]
        np.testing.assert_allclose(
            [at.min(), at.max()], [min(values[:, time]), max(values[:, time])]
        )


def test_one_seed_has_no_band(ax):
    """Closed form: the range of one value is nothing to draw."""
    plots.draw_curves(ax, np.arange(3.0), np.ones((1, 3)), label="a", color="k")
    assert not ax.collections


def test_a_seed_that_stops_ends_the_curve(ax):
    """Closed form: no mean over fewer seeds than the label says; and no warning."""
    values = np.array([[3.0, 2.0, 1.0], [3.0, np.nan, np.nan]])
    plots.draw_curves(ax, np.arange(3.0), values, label="a", color="k")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3.0, np.nan, np.nan])


def test_clouds_share_their_limits():
    """Closed form: every point of every cloud in view, each panel square and the same."""
    rng = np.random.default_rng(1)
    small, large = rng.normal(size=(2, 7, 2)) * np.array([1.0, 9.0])[:, None, None]
    _, axes = plots.panels(1, 2)
    plots.draw_clouds(axes, [small, large], titles=["time 0", "time 1"], label="7 heads")
    plots.draw_clouds(axes, [small[:2] + 30, large[:2]], titles=["time 0", "time 1"])
    (x, y) = axes[0].get_xlim(), axes[0].get_ylim()
    assert (axes[1].get_xlim(), axes[1].get_ylim()) == (x, y)
    np.testing.assert_allclose(np.ptp(x), np.ptp(y))
    for points in (small, large, small[:2] + 30):
        assert (points > [x[0], y[0]]).all()
        assert (points < [x[1], y[1]]).all()
    np.testing.assert_array_equal(axes[1].collections[0].get_offsets(), large)


def test_frames_of_an_animation_agree():
    """Invariance: with the same view, what a frame holds does not move its limits."""
    view = np.array([[-5.0, 0.0], [5.0, 1.0]])
    limits = []
    for cloud in (np.zeros((3, 2)), view / 2):
        _, axes = plots.panels()
        plots.draw_clouds(axes, [cloud], titles=[""], view=view)
        limits.append((axes[0].get_xlim(), axes[0].get_ylim()))
    assert limits[0] == limits[1]


@pytest.mark.parametrize("cloud", [np.zeros((4, 2)), np.full((4, 2), np.nan), np.zeros((0, 2))])
def test_degenerate_clouds_draw(cloud):
    """Closed form: one place, no finite place and no place at all are drawn without a warning."""
    figure, axes = plots.panels()
    plots.draw_clouds(axes, [cloud], titles=["time 0"])
    figure.canvas.draw()


def test_clouds_must_match_panels():
    """House rule: one sentence that says what there is how many of."""
    with pytest.raises(ValueError, match="got 1 axes and 1 titles for 2 clouds"):
        plots.draw_clouds(plots.panels()[1], [np.zeros((1, 2))] * 2, titles=["a"])


def test_rate_draws_the_fit(ax):
    """Independent library: the drawn line is that of scipy's regression on the logarithms."""
    rng = np.random.default_rng(2)
    x = np.array([4.0, 8.0, 16.0, 24.0])
    y = x**-0.5 * np.exp(0.1 * rng.normal(size=(3, 4)))
    fit = rates.log_log_slope(x, y)
    plots.draw_rate(ax, x, y, fit, expected=-0.5)
    points, line, theory = ax.lines
    np.testing.assert_array_equal(points.get_ydata(), y.ravel())
    np.testing.assert_array_equal(points.get_xdata(), np.tile(x, 3))
    found = stats.linregress(np.log(np.tile(x, 3)), np.log(y.ravel()))
    drawn = stats.linregress(np.log(line.get_xdata()), np.log(line.get_ydata()))
    np.testing.assert_allclose(
        [drawn.slope, drawn.intercept], [found.slope, found.intercept], rtol=1e-12
    )
    expected = stats.linregress(np.log(theory.get_xdata()), np.log(theory.get_ydata()))
    np.testing.assert_allclose(expected.slope, -0.5, rtol=1e-12)
    middle = np.mean(np.log(x[[0, -1]]))
    np.testing.assert_allclose(
        expected.intercept + expected.slope * middle, found.intercept + found.slope * middle
    )
    for number in (fit.slope, fit.low, fit.high):
        assert f"{number:.2f}".replace("-", "−") in line.get_label()
    assert theory.get_label() == "theory: slope −1/2"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["4", "8", "16", "24"]
