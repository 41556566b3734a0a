import numpy as np
import pytest

from meanfield import past, store


def run(**arrays):
    return store.Run(arrays, {"experiment": "toy"})


def names(*runs):
    found = past.common_curves({str(at): one for at, one in enumerate(runs)})
    return {name: lines[0].axis for name, lines in found.items()}


TIMES, WIDTHS = np.linspace(0, 1, 5), np.array([2, 4, 8])


def test_curves_over_time_and_width():
    """Closed form: one dimension as long as an axis; the others become rows."""
    one = run(
        times=TIMES, widths=WIDTHS, loss=np.arange(30.0).reshape(3, 2, 5), gap=np.ones((2, 3))
    )
    other = run(times=TIMES[1:], widths=WIDTHS, loss=np.ones((3, 1, 4)), gap=np.ones((2, 3)))
    found = past.common_curves({"one": one, "other": other})
    assert {name: lines[0].axis for name, lines in found.items()} == {
        "gap": "widths",
        "loss": "times",
    }
    first, second = found["loss"]
    np.testing.assert_array_equal(first.values, np.arange(30.0).reshape(6, 5))
    np.testing.assert_array_equal(second.x, TIMES[1:])
    assert second.values.shape == (3, 4)
    np.testing.assert_array_equal(found["gap"][0].values, np.ones((2, 3)))


@pytest.mark.parametrize(
    "arrays",
    [
        {"widths": WIDTHS, "x": np.ones((3, 3))},
        {"widths": WIDTHS, "depths": WIDTHS, "x": np.ones(3)},
        {"widths": WIDTHS[::-1], "x": np.ones(3)},
        {"widths": WIDTHS, "x": np.array(["a", "b", "c"])},
        {"inner": {"widths": WIDTHS}, "outer": {"x": np.ones(3)}},
        {"times": np.array([0.0, np.nan, 2.0]), "x": np.ones(3)},
    ],
)
def test_what_could_be_over_another_axis_is_not_drawn(arrays):
    """House rule: an axis is told from lengths only where nothing else fits."""
    assert "x" not in names(run(**arrays), run(**arrays))


def test_a_second_run_can_tell_axes_apart():
    """Closed form: three seeds look like three widths until another run has two."""
    one = run(widths=WIDTHS, x=np.ones((3, 3)))
    assert names(one, run(widths=WIDTHS, x=np.ones((3, 2)))) == {"x": "widths"}
    assert names(one, run(widths=WIDTHS, y=np.ones(3))) == {}


def test_the_figure():
    """Closed form: a panel for each curve up to twelve, its axis named, a line for each run."""
    one = run(times=TIMES, **{f"x{at:02}": np.exp(-9 * TIMES) for at in range(14)})
    curves = past.common_curves({"a": one, "b": one, "c": one})
    figure = past.draw_overlay(curves, ["a", "b", "c"])
    assert [ax.get_title() for ax in figure.axes] == [f"x{at:02}" for at in range(12)]
    for ax in figure.axes:
        assert len(ax.lines) == 3
        assert (ax.get_xlabel(), ax.get_yscale(), ax.get_xscale()) == ("times", "log", "linear")
    legend = figure.axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
