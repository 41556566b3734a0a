r"""Pathfinder images: do two dots lie on the same dashed path?

    label 1   the dots are the two ends of one path
    label 0   the dots are one end of each of two paths

The picture is drawn before the label is looked at, which decides only where the second dot goes:
to the other end of the first dot's path or to that of the other path. As the first dot's path is
drawn uniformly, every statistic of the picture without dots, and the law of each dot alone, are the
same in both classes.

    brightness = floor(255 v / max v),   v = max(dashes / max(dashes), dots)

One trap: the two dots *together* are no such statistic. Their displacement alone tells the label of
53 % of the images of the Long Range Arena's hard level, of 57 % of the easy level's, and of 80 % at
16 x 16 with two dashes and spread 3: that, and not 50 %, is chance, unless the paths are `matched`.

As published, paths may touch, for neither the first dashes nor the newest one of the other path are
in the way of a dash. Measured, both target paths light the same pixel, each by a quarter of its
brightest or more, in 20 % of the hard images, 13 % of the easy and 20 % of those small ones. Only
paths drawn `apart` never do.

References:
    Linsley et al. 2018, arXiv 1805.08315 (the task);
    Tay et al. 2021, arXiv 2011.04006 (Long Range Arena: the sizes).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from meanfield.checks import count
from meanfield.tasks import pathfinder_growth as growth
from meanfield.tasks.pathfinder_canvas import Plan, plan
from meanfield.tasks.pathfinder_choice import choice
from meanfield.tasks.pathfinder_shapes import Design

TOGETHER = 64
"""Images grown side by side: more do not fit into a processor's cache."""


class Pathfinder(NamedTuple):
    """Pathfinder images, their labels, and what was drawn.

    `labels` are 1 where the dots lie on the same path. `dots` are their pixels (row, column), the
    first one first. `paths` are the dashes of the two target paths from end to end, each as the
    pixel where the dash is anchored; `distractors` those of the distractor paths, and `drawn` says
    which of these found room. All but images and labels is for checks and never an input.
    """

    images: UInt8[np.ndarray, "b h w"]
    labels: Int[np.ndarray, " b"]
    dots: Int[np.ndarray, "b 2 2"]
    paths: Int[np.ndarray, "b 2 n 2"]
    distractors: Int[np.ndarray, "b p k 2"]
    drawn: Bool[np.ndarray, "b p"]


def pathfinder(
    seed: int,
    images: int,
    /,
    *,
    first: int = 0,
    size: int = 32,
    dashes: int = 14,
    distractors: int | tuple[int, int] = (0, 5),
    distractor_dashes: int | None = None,
    dash: int = 2,
    thickness: float | int = 0.5,
    gap: int = 1,
    continuity: float | int = 1.0,
    spread: int = 7,
    dot: float | int = 1.5,
    contrast: float | int = 0.75,
    matched: int | None = None,
    apart: bool = False,
) -> Pathfinder:
    """Images of the Pathfinder task, those of the Long Range Arena's hard level by default.

    Args:
        seed: Seed of all images; image i depends on seed and i alone.
        images: How many.
        first: Number of the first image.
        size: Side of an image, in pixels.
        dashes: Dashes of each of the two target paths; published: 14 hard, 9 intermediate, 6 easy.
        distractors: Distractor paths, or their least and greatest number; fewer without room.
        distractor_dashes: Dashes of each; a third of `dashes` if None.
        dash: Length of a dash, in pixels.
        thickness: Thickness of a dash, in pixels.
        gap: Half the distance between the dashes of a path, and the room round each, in pixels.
        continuity: How straight paths run: a turn by D has weight cos(continuity D)^2.
        spread: Distance between the first ends of the two target paths, in pixels.
        dot: Radius of the dots, in pixels.
        contrast: Brightness of target paths over that of distractor paths.
        matched: Cells, of so many pixels, in which the dots' displacement tells no label, if any.
        apart: Whether only target paths are kept that light no pixel together.

    Raises:
        ValueError: If an option is out of its range, or dots or paths do not fit the image.

    >>> drawn = pathfinder(1, 4, dashes=6)
    >>> drawn.images.shape, drawn.labels.tolist()
    ((4, 32, 32), [0, 1, 1, 0])
    """
    count("seed", seed, least=0)
    count("images", images)
    count("first", first, least=0)
    both = (distractors, distractors) if isinstance(distractors, int) else distractors
    third = max(1, dashes // 3) if distractor_dashes is None else distractor_dashes
    design = Design(
        size=size, dashes=dashes, distractors=both, distractor_dashes=third, dash=dash,
        thickness=thickness, gap=gap, continuity=continuity, spread=spread, dot=dot,
        contrast=contrast,
    )  # fmt: skip
    ready = plan(design)
    keep = choice(ready, matched=matched, apart=apart)
    return _all(ready, seed, range(first, first + images), keep)


def _all(
    plan: Plan, seed: int, numbers: range, keep: Callable[[growth.Paths], np.ndarray] | None
) -> Pathfinder:
    starts = range(0, len(numbers), TOGETHER)
    parts = [_some(plan, seed, numbers[start : start + TOGETHER], keep) for start in starts]
    return Pathfinder(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _some(
    plan: Plan, seed: int, numbers: range, keep: Callable[[growth.Paths], np.ndarray] | None
) -> Pathfinder:
    generators = [np.random.default_rng([seed, number]) for number in numbers]
    # Label and first path are drawn first: nothing that is drawn later can lean on them.
    label, origin = np.array([generator.integers(0, 2, 2) for generator in generators]).T
    paths, canvases = growth.targets(plan, generators, keep=keep)
    others, drawn = growth.distractors(plan, canvases, generators)
    every = np.arange(len(numbers))
    ends = np.where(label == 1, origin, 1 - origin)
    dots = np.stack([paths.places[every, origin, 0], paths.places[every, ends, -1]], axis=1)
    dashes = _ink(plan, [(paths, None, plan.design.contrast), (others, drawn, 1.0)])
    return Pathfinder(
        images=_brightness(plan, dashes, dots),
        labels=label.astype(np.int32),
        dots=dots.astype(np.int32),
        paths=paths.places.astype(np.int32),
        distractors=others.places.astype(np.int32),
        drawn=drawn,
    )


def _ink(plan: Plan, layers: list[tuple[growth.Paths, np.ndarray | None, float]]) -> np.ndarray:
    """All dashes on pictures with a rim, 1 = the brightest."""
    templates = plan.shapes.ink.reshape(len(plan.shapes.ink), -1)
    rows = len(layers[0][0].places)
    pictures = np.zeros((rows, plan.side, plan.side), np.float32)
    for paths, drawn, brightness in layers:
        for path in range(paths.places.shape[1]):
            seen = np.arange(rows) if drawn is None else np.flatnonzero(drawn[:, path])
            for places, directions in zip(
                paths.places[seen, path].swapaxes(0, 1), paths.directions[seen, path].T, strict=True
            ):
                _paint(plan, pictures, seen, places, brightness * templates[directions])
    return pictures / pictures.max(axis=(1, 2), keepdims=True)


def _brightness(plan: Plan, pictures: np.ndarray, dots: np.ndarray) -> np.ndarray:
    rows = np.arange(len(pictures))
    disc = plan.shapes.dot.reshape(1, -1)
    for place in dots.swapaxes(0, 1):
        _paint(plan, pictures, rows, place, disc)
    inner = slice(plan.rim, plan.rim + plan.design.size)
    image = pictures[:, inner, inner]
    return np.floor(255 * (image / image.max(axis=(1, 2), keepdims=True))).astype(np.uint8)


def _paint(
    plan: Plan, pictures: np.ndarray, rows: np.ndarray, places: np.ndarray, ink: np.ndarray
) -> None:
    """Each picture becomes the brighter of itself and a template round a pixel of its own."""
    half = int(ink.shape[1] ** 0.5) // 2
    steps = np.arange(-half, half + 1)
    window = (steps[:, None] * plan.side + steps[None, :]).ravel()
    corner = (places[:, 0] + plan.rim) * plan.side + places[:, 1] + plan.rim
    index = (rows * plan.side**2 + corner)[:, None] + window[None, :]
    flat = pictures.reshape(-1)
    flat[index] = np.maximum(flat[index], ink)
