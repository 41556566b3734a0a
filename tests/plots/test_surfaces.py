import numpy as np
import pytest

from meanfield import plots


@pytest.fixture
def ax():
    return plots.panels()[1][0]


GRID, OTHER = np.linspace(-1, 1, 5), np.linspace(0, 2, 7)


def test_levels_hold_every_finite_value():
    """Closed form: from the least to the greatest of all surfaces, NaN and infinity left out."""
    high = np.array([[1.0, np.inf], [5.0, 2.0]])
    levels = plots.shared_levels([high, np.array([[-3.0, np.nan]])], number=9)
    np.testing.assert_allclose(levels, np.arange(-3.0, 6.0))
    flat = plots.shared_levels([np.zeros((2, 2))])
    assert np.all(np.diff(flat) > 0)
    with pytest.raises(ValueError, match="surfaces must hold a finite value"):
        plots.shared_levels([np.full((2, 2), np.nan)])


def test_contours_lie_where_the_surface_has_their_level(ax):
    """Closed form: contours of x on a grid of x and y are lines x = level."""
    values = np.repeat(GRID[:, None], len(OTHER), axis=1)
    levels = np.linspace(-1, 1, 9)
    plots.draw_contours(ax, GRID, OTHER, values, levels=levels)
    lines = ax.collections[-1]
    for level, path in zip(levels[1:-1:2], lines.get_paths(), strict=True):
        np.testing.assert_allclose(path.vertices[:, 0], level, atol=1e-12)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (0, 2))


def test_a_relief_takes_the_place_of_its_panel():
    """Closed form: same place, the heights within the shared limits."""
    figure, (left, right) = plots.panels(columns=2)
    place = right.get_subplotspec()
    values = np.add.outer(GRID, OTHER)
    values[0, 0] = np.inf
    relief = plots.draw_relief(
        right, GRID, OTHER, values, levels=np.array([-2.0, 4.0]), label="loss"
    )
    assert relief.get_subplotspec() == place
    assert figure.axes == [left, relief]
    assert relief.get_zlim() == (-2.0, 4.0)
    assert relief.get_zlabel() == "loss"


def test_a_track_lies_on_the_surface():
    """Closed form: on the surface 2 x - y between its points, which bilinear ones hit; not off."""
    relief = plots.draw_relief(
        plots.panels()[1][0], GRID, OTHER, np.zeros((5, 7)), levels=np.arange(2.0), label="loss"
    )
    values = np.subtract.outer(2 * GRID, OTHER)
    track = np.array([[-0.9, 0.1], [0.3, 1.7], [1.5, 1.0]])
    plots.draw_track(relief, GRID, OTHER, values, track, color="red")
    way, start, end = (np.array(line.get_data_3d()).T for line in relief.lines)
    np.testing.assert_allclose(way[:, :2], track)
    np.testing.assert_allclose(way[:, 2], [-1.9, -1.1, np.nan], rtol=1e-12)
    np.testing.assert_array_equal(start[0], way[0])
    np.testing.assert_array_equal(end[0], way[2])


def test_panels_share_one_scale_of_colours(ax):
    """Closed form: the limits of the scale are the ends of the levels."""
    plots.draw_colors([ax], levels=np.array([0.5, 1.0, 3.0]), label="loss")
    bar = ax.figure.axes[-1]
    assert bar.get_ylabel() == "loss"
    np.testing.assert_allclose(bar.get_ylim(), (0.5, 3.0))
