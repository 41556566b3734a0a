import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from meanfield import tasks
from meanfield.tasks import pathfinder_canvas, pathfinder_growth, pathfinder_shapes

ROOMY = {"size": 130, "spread": 32, "dashes": 3, "dash": 2}
"""So far apart that the two paths cannot meet: 3 dashes reach 10 pixels and a few of rounding."""


@pytest.fixture(scope="module")
def hard():
    """Images of the published hard level."""
    return tasks.pathfinder(0, 2000)


def connected(image, reach):
    """The connected pieces of what is lit, where gaps of 2 reach are bridged."""
    steps = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return ndimage.label(ndimage.binary_dilation(image > 0, steps <= reach), np.ones((3, 3)))


@pytest.mark.parametrize("thickness", [0.5, 1.0])
def test_the_label_is_what_one_sees(thickness):
    """Independent library: scipy floods what is lit; the dots lie in one piece or in two."""
    drawn = tasks.pathfinder(3, 60, distractors=0, thickness=thickness, **ROOMY)
    for image, label, dots in zip(drawn.images, drawn.labels, drawn.dots, strict=True):
        pieces, number = connected(image, 2)
        assert number == 2
        assert (pieces[*dots[0]] == pieces[*dots[1]]) == (label == 1)
    assert 15 < drawn.labels.sum() < 45


def test_the_dots_are_ends_of_paths(hard):
    """Numpy loop: the second dot ends the first one's path, or the other path."""
    for label, dots, paths in zip(hard.labels, hard.dots, hard.paths, strict=True):
        starts, ends = paths[:, 0].tolist(), paths[:, -1].tolist()
        own = starts.index(dots[0].tolist())
        assert dots[1].tolist() == ends[own if label else 1 - own]


def test_paths_are_dashed_lines_that_are_lit(hard):
    """Numpy loop: a dash is lit where it is anchored, and the next one is a step of the path on."""
    for image, paths in zip(hard.images[:300], hard.paths, strict=False):
        assert np.all(image[paths[..., 0], paths[..., 1]] > 30)
        steps = np.linalg.norm(np.diff(paths[:, 1:].astype(float), axis=1), axis=-1)
        assert np.all((steps >= 1) & (steps < 2 * (2 + 1) + math.sqrt(2)))
    assert np.all(hard.images.max(axis=(1, 2)) == 255)


def test_the_dots_alone():
    """Closed form: with hardly a dash in their way both dots have the area of a disc."""
    drawn = tasks.pathfinder(5, 20, distractors=0, dot=4.0, **ROOMY)
    for image, dots in zip(drawn.images, drawn.dots, strict=True):
        for row, column in dots:
            around = image[row - 4 : row + 5, column - 4 : column + 5].astype(float)
            lit = np.sum(around > 0.5 * 255 / 1.16)
            assert abs(lit - math.pi * 16) < 8


def test_labels_are_balanced(hard):
    """Closed form: a fair coin, and each path's start is the first dot in half of the images."""
    ones = hard.labels.sum()
    assert abs(ones - 1000) < 4 * math.sqrt(500)
    own = np.all(hard.paths[:, 0, 0] == hard.dots[:, 0], axis=-1)
    assert abs(own.sum() - 1000) < 4 * math.sqrt(500)


def test_the_published_statistics_are_near(hard):
    """Independent library: statistics of a set drawn by the published rules, 44,000 images."""
    for level, share in ((0, 0.3838), (30, 0.1507), (60, 0.1359), (120, 0.0810)):
        np.testing.assert_allclose((hard.images > level).mean(), share, rtol=0.04)
    np.testing.assert_allclose(hard.images.mean(), 19.96, rtol=0.05)
    np.testing.assert_allclose(hard.images.std(), 48.68, rtol=0.04)
    apart = np.linalg.norm((hard.dots[:, 0] - hard.dots[:, 1]).astype(float), axis=1)
    for label, distance in ((1, 13.29), (0, 12.68)):
        found = apart[hard.labels == label]
        error = found.std() / math.sqrt(len(found))
        assert error < 0.2
        assert abs(found.mean() - distance) < 4 * error
    assert hard.dots[:, 0].min() == 7
    assert hard.dots[:, 0].max() == 23


def test_an_image_does_not_depend_on_the_others():
    """Invariance: image 70 is the same alone, among five and among eighty."""
    options = {"dashes": 9, "distractors": (1, 4)}
    every = tasks.pathfinder(11, 80, **options)
    for first, images in ((70, 1), (68, 5)):
        some = tasks.pathfinder(11, images, first=first, **options)
        for whole, part in zip(every, some, strict=True):
            np.testing.assert_array_equal(part, whole[first : first + images])
    other = tasks.pathfinder(12, 80, **options)
    assert not np.any(np.all(every.images == other.images, axis=(1, 2)))


def test_winners_have_the_law_of_fresh_starts(monkeypatch):
    """Theorem: with one pair at a time growth is the published rejection; means within errors."""
    options = {"dashes": 7, "distractors": 0}
    many = tasks.pathfinder(1, 1500, **options)
    monkeypatch.setattr(pathfinder_growth, "PAIRS", 1)
    monkeypatch.setattr(pathfinder_growth, "ROUNDS", 100_000)
    one = tasks.pathfinder(2, 500, **options)
    for statistic in (length, spread, lambda paths: paths[:, 1, -1, 0].astype(float)):
        first, second = statistic(many.paths), statistic(one.paths)
        error = math.sqrt(first.var() / len(first) + second.var() / len(second))
        assert error < 0.07 * first.std()
        assert abs(first.mean() - second.mean()) < 4 * error


def length(paths):
    return np.linalg.norm((paths[:, :, -1] - paths[:, :, 0]).astype(float), axis=-1).mean(axis=1)


def spread(paths):
    return paths.reshape(len(paths), -1, 2).astype(float).std(axis=1).mean(axis=1)


@pytest.mark.parametrize(("into", "out"), [(17, 9), (10, 5), (5, 10), (7, 7)])
def test_resizing(into, out):
    """Independent library: Pillow's Lanczos filter on floating-point pictures."""
    picture = np.random.default_rng(0).uniform(size=(into, into)).astype(np.float32)
    resize = pathfinder_shapes.lanczos(into, out)
    expected = np.asarray(Image.fromarray(picture).resize((out, out), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(resize @ picture @ resize.T, expected, atol=2e-6)


def test_options_change_what_they_say():
    """Closed form: numbers of paths and dashes, sizes, and brightness of targets."""
    drawn = tasks.pathfinder(
        0, 8, size=64, dashes=5, distractors=3, distractor_dashes=2, spread=12, dash=4, contrast=0.5
    )
    assert drawn.images.shape == (8, 64, 64)
    assert drawn.paths.shape == (8, 2, 5, 2)
    assert drawn.distractors.shape == (8, 3, 2, 2)
    assert drawn.drawn.all()
    for image, paths, others in zip(drawn.images, drawn.paths, drawn.distractors, strict=True):
        targets = image[paths[:, 1:-1, 0], paths[:, 1:-1, 1]].mean()
        assert targets < 0.75 * image[others[:, 1, 0], others[:, 1, 1]].mean()
    straight = tasks.pathfinder(0, 40, distractors=0, continuity=2.5, **ROOMY)
    bent = tasks.pathfinder(0, 40, distractors=0, continuity=0.5, **ROOMY)
    assert length(straight.paths).mean() > 1.1 * length(bent.paths).mean()


def test_claims_keep_paths_apart():
    """Numpy loop: where two distractors' footprints meet, they claim less than 1.8 of a pixel."""
    plan = pathfinder_canvas.plan(pathfinder_shapes.pathfinder_design(distractors=(6, 6)))
    canvases = pathfinder_canvas.empty(plan, 20)
    rngs = [np.random.default_rng(row) for row in range(20)]
    paths, grown = pathfinder_growth.distractors(plan, canvases, rngs)
    half = plan.shapes.footprint.shape[1] // 2
    for row in range(20):
        layers = np.zeros((6, plan.side, plan.side))
        for path in np.flatnonzero(grown[row]):
            for (y, x), direction in zip(
                paths.places[row, path] + plan.rim, paths.directions[row, path], strict=True
            ):
                window = layers[path, y - half : y + half + 1, x - half : x + half + 1]
                np.maximum(window, plan.shapes.footprint[direction] / 255, out=window)
        top = np.sort(layers, axis=0)[-2:]
        # A first dash is placed where its full pixels are free; only later ones are tested whole.
        assert np.max(top.sum(axis=0)) < 2
        assert np.mean(top.sum(axis=0) >= 1.8) < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dashes": 40}, "dashes must be so few that two paths of them fit into 32 x 32 pixels"),
        ({"size": 29}, "size must be >= 4 spread \\+ 2 = 30, got 29"),
        ({"dot": 4.0}, "dot must be <= spread/2 = 3.5, got 4"),
        ({"dash": 7}, "spread must be >= dash \\+ gap = 8, got 7"),
        ({"dot": 0.0}, "dot must be a finite number > 0"),
        ({"gap": 0}, "gap must be an integer >= 1, got 0"),
        ({"dashes": 0}, "dashes must be an integer >= 1, got 0"),
        ({"distractors": -1}, "distractors must be an integer >= 0, got -1"),
        ({"distractors": (3, 2)}, "the greatest number of distractors must be an integer >= 3"),
        ({"thickness": math.nan}, "thickness must be a finite number > 0"),
        ({"continuity": -1.0}, "continuity must be >= 0"),
        ({"first": -1}, "first must be an integer >= 0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    """Theorem: no image can show these."""
    with pytest.raises(ValueError, match=message):
        tasks.pathfinder(0, 2, **options)
