import numpy as np
import pytest

from meanfield import plots

EDGES = np.linspace(-1.0, 1.0, 5), np.linspace(0.0, 3.0, 4)


def drawn(*densities, **options):
    figure, axes = plots.panels(1, len(densities))
    plots.draw_densities(axes, densities, EDGES, titles=["t"] * len(densities), **options)
    return figure, axes


def test_the_first_axis_points_right():
    """Closed form: one heavy cell, found again at its own corners."""
    density = np.zeros((4, 3))
    density[3, 0] = 2.0
    _, (ax,) = drawn(density)
    (mesh,) = ax.collections
    corners = mesh.get_coordinates()
    row, column = np.argwhere(np.asarray(mesh.get_array()).reshape(3, 4) == 2.0)[0]
    np.testing.assert_allclose(corners[row, column], [0.5, 0.0])
    np.testing.assert_allclose(corners[row + 1, column + 1], [1.0, 1.0])


@pytest.mark.parametrize(("options", "top"), [({}, 5.0), ({"ceiling": 9.0}, 9.0)])
def test_one_scale_for_all(options, top):
    """Closed form: from 0 to the largest of all panels, or to the ceiling."""
    _, axes = drawn(np.ones((4, 3)), 5 * np.ones((4, 3)), **options)
    for ax in axes:
        assert ax.collections[0].get_clim() == (0.0, top)


def test_the_colour_bar_has_its_label():
    """Closed form: one more axis with the label, only if asked."""
    plain, _ = drawn(np.ones((4, 3)))
    assert len(plain.axes) == 1
    figure, _ = drawn(np.ones((4, 3)), label="density")
    assert figure.axes[1].get_ylabel() == "density"


def test_clouds_lie_over_densities():
    """Closed form: every particle is drawn, above the map."""
    _, axes = drawn(np.ones((4, 3)))
    plots.draw_clouds(axes, [np.array([[0.1, 2.9], [-0.9, 0.2]])], titles=["t"])
    mesh, points = axes[0].collections
    assert points.get_zorder() >= mesh.get_zorder()
    assert len(points.get_offsets()) == 2


def test_densities_must_match_panels():
    """House rule: one sentence that says what there is how many of."""
    with pytest.raises(ValueError, match="got 1 axes and 1 titles for 2 densities"):
        plots.draw_densities(plots.panels()[1], [np.ones((4, 3))] * 2, EDGES, titles=["a"])
