"""The two classes of Pathfinder images, and choices among its paths."""

import math

import numpy as np
import pytest

from meanfield import tasks
from meanfield.tasks import pathfinder_canvas, pathfinder_choice, pathfinder_growth
from meanfield.tasks import pathfinder_shapes as shapes

SMALL = {"size": 16, "dashes": 2, "spread": 3, "distractors": 0}
LEVELS = {
    "hard": {},
    "easy": {"dashes": 6},
    "small": SMALL,
    "small, matched": SMALL | {"matched": 2, "apart": True},
}


APART = {"hard": 0.20, "easy": 0.13, "small": 0.20}
"""Share of images whose target paths touch, as stated."""


def scores(values, ones):
    """Difference of the means by class over its standard error, and that error."""
    first, second = values[ones].astype(float), values[~ones].astype(float)
    error = np.sqrt(first.var(axis=0) / len(first) + second.var(axis=0) / len(second))
    return (first.mean(axis=0) - second.mean(axis=0)) / error, error


@pytest.mark.parametrize("level", LEVELS)
def test_classes_agree_in_every_first_order_statistic(level):
    """Theorem: the label is drawn before the picture; means by class within standard errors.

    Power: an error is below 0.05 of a spread, 0.08 of matched images, which are fewer; so a
    difference of 6 errors, 0.3 or 0.5 of a spread, is seen 39 times of 40.
    """
    drawn = tasks.pathfinder(0, 800 if "matched" in level else 2000, **LEVELS[level])
    least = 0.08 if "matched" in level else 0.05
    ones = drawn.labels == 1
    pixels = drawn.images.reshape(len(ones), -1).astype(float)
    middle = (drawn.images.shape[1] - 1) / 2
    statistics = {
        "ink": (pixels > 30).sum(axis=1, keepdims=True),
        "brightness": pixels.mean(axis=1, keepdims=True),
        "first dot": drawn.dots[:, 0],
        "second dot": drawn.dots[:, 1],
        "spread of a dot": (drawn.dots.reshape(len(ones), 4) - middle) ** 2,
    }
    if drawn.drawn.size:
        statistics["distractors"] = drawn.drawn.sum(axis=1, keepdims=True)
    for name, values in statistics.items():
        score, error = scores(values, ones)
        assert np.all(np.abs(score) < 4), name
        assert np.all(error < least * values.std(axis=0)), name
    lit = pixels[:, (pixels > 0).mean(axis=0) > 0.05]
    score, _ = scores(lit, ones)
    assert lit.shape[1] > 0.75 * pixels.shape[1]
    assert np.all(np.abs(score) < 5)
    # Neighbouring pixels lean on each other: a tenth of them counts, and not all.
    assert abs(np.mean(score**2) - 1) < 4 * math.sqrt(2 / (lit.shape[1] / 10))


def test_the_dots_together_tell_the_label_unless_matched():
    """Numpy loop: in matched pairs the second dot could be either end, for all that one sees of it.

    Power: without the choice the same displacements differ by more than 6 standard errors.
    """
    drawn = tasks.pathfinder(0, 2000, **SMALL)
    far = (drawn.dots[:, 1] - drawn.dots[:, 0]).astype(float)
    score, _ = scores(np.linalg.norm(far, axis=1), drawn.labels == 1)
    assert abs(score) > 6
    for cell, images in ((1, 64), (3, 300)):
        drawn = tasks.pathfinder(0, images, matched=cell, **SMALL)
        for dots, paths in zip(drawn.dots, drawn.paths, strict=True):
            seen = sorted(np.abs(dots[1] - dots[0]) // cell)
            for end in paths[:, -1]:
                assert sorted(np.abs(end - dots[0]) // cell) == seen
            assert np.linalg.norm((paths[0, -1] - paths[1, -1]).astype(float)) >= 3
        far = (drawn.dots[:, 1] - drawn.dots[:, 0]) // cell
        score, _ = scores(np.sort(np.abs(far), axis=1), drawn.labels == 1)
        assert np.all(np.abs(score) < 4)


def lit_by_path(plan, paths):
    """Where each path lights a pixel, painted dash by dash [b 2 h w]."""
    lit = np.zeros((len(paths.places), 2, plan.side, plan.side), bool)
    half = plan.shapes.ink.shape[1] // 2
    for image in range(len(lit)):
        for path in range(2):
            dashes = zip(paths.places[image, path], paths.directions[image, path], strict=True)
            for place, direction in dashes:
                ink = plan.shapes.ink[direction]
                window = tuple(slice(p + plan.rim - half, p + plan.rim + half + 1) for p in place)
                lit[image, path][window] |= ink >= 0.25 * ink.max()
    return lit


@pytest.mark.parametrize("level", APART)
def test_how_often_paths_touch(level):
    """Numpy loop: each path painted alone; the share is what is stated, and 0 if asked."""
    options = LEVELS[level]
    changes = {name: value for name, value in options.items() if name != "distractors"}
    plan = pathfinder_canvas.plan(shapes.pathfinder_design(**changes, distractors=(0, 0)))
    for apart in (False, True):
        rngs = [np.random.default_rng([5, image]) for image in range(400)]
        keep = pathfinder_choice.choice(plan, matched=None, apart=apart)
        paths, _ = pathfinder_growth.targets(plan, rngs, keep=keep)
        touch = lit_by_path(plan, paths).all(axis=1).any(axis=(1, 2))
        np.testing.assert_array_equal(pathfinder_choice.touching(plan, paths), touch)
        share = 0.0 if apart else APART[level]
        assert abs(touch.mean() - share) <= 3.5 * math.sqrt(share / 400)


def test_choices_that_leave_nothing_are_refused(monkeypatch):
    """House rule: one sentence with a way out."""
    monkeypatch.setattr(pathfinder_growth, "CHOICES", 1)
    with pytest.raises(ValueError, match="matched and apart must leave some pairs of paths, got"):
        tasks.pathfinder(0, 20, matched=1)
    with pytest.raises(ValueError, match="matched must be an integer >= 1, got 0"):
        tasks.pathfinder(0, 20, matched=0)
