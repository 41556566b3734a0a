r"""Templates of the Pathfinder's dashes and dots: small pictures, one for each direction.

A dash is drawn as a line on a finer canvas and resized by Lanczos; its *footprint* is the same line
made thicker by a disc of radius ``gap``: the room that it claims. To grow paths is then to look up
windows (:mod:`meanfield.tasks.pathfinder_growth`). Pixels are (row, column), and an angle t points
to (sin t, cos t).

Directions are numbered: 0..359 are the whole degrees -180..179 of a path's first dash, which is
drawn forwards from its start; 360 and on are the steps to the candidates for the next dash, which
is drawn backwards from the candidate.

One trap: resized by 17/9 and not by 2, a dash is slightly longer and fainter than its name says;
this is the published picture.

References:
    Linsley et al. 2018, arXiv 1805.08315; Tay et al. 2021, arXiv 2011.04006 (Pathfinder).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from meanfield.checks import count, non_negative, positive

FINER = 2
"""Pixels of the finer canvas per pixel."""
DEGREES = 360
"""Directions that a first dash may have."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """How a Pathfinder image looks.

    Attributes:
        size: Side of the image, in pixels.
        dashes: Dashes of each of the two target paths.
        distractors: Least and greatest number of distractor paths.
        distractor_dashes: Dashes of each.
        dash: Length of a dash, in pixels.
        thickness: Thickness of a dash, in pixels.
        gap: Half the distance between the dashes of a path, and the room around each, in pixels.
        continuity: How straight paths run: a turn by D has weight cos(continuity D)^2.
        spread: Distance of the two paths' first ends, in pixels.
        dot: Radius of the two dots, in pixels.
        contrast: Brightness of target paths over that of distractor paths.
    """

    size: int
    dashes: int
    distractors: tuple[int, int]
    distractor_dashes: int
    dash: int
    thickness: float | int
    gap: int
    continuity: float | int
    spread: int
    dot: float | int
    contrast: float | int

    def __post_init__(self) -> None:
        """Refuses what no image could show."""
        for name in ("size", "dashes", "distractor_dashes", "dash", "gap", "spread"):
            count(name, getattr(self, name))
        least, greatest = self.distractors
        count("distractors", least, least=0)
        count("the greatest number of distractors", greatest, least=least)
        for name in ("thickness", "dot", "contrast"):
            positive(name, getattr(self, name))
        non_negative("continuity", self.continuity)
        if self.size < 4 * self.spread + 2:
            raise ValueError(
                f"size must be >= 4 spread + 2 = {4 * self.spread + 2}, got {self.size}: the first "
                "path starts 2 spread or more from every edge; enlarge the image or lower spread"
            )
        if self.spread < self.dash + self.gap:
            raise ValueError(
                f"spread must be >= dash + gap = {self.dash + self.gap}, got {self.spread}: the "
                "first dashes do not fit between the paths; raise spread or shorten the dash"
            )
        if 2 * self.dot > self.spread:
            raise ValueError(
                f"dot must be <= spread/2 = {self.spread / 2:g}, got {self.dot:g}: larger dots do "
                "not fit between two paths; lower dot or raise spread"
            )


class Shapes(NamedTuple):
    """Templates by direction, all square with an odd side and centred on the pixel of the dash.

    Attributes:
        ink: What a dash adds to the picture, 1 = a full pixel.
        footprint: The room it claims, 255 = all of a pixel.
        near: The footprint, dilated by a disc of radius gap.
        far: From the start of a first dash to its other end.
        ahead: From a pivot, or the start of a first dash, to the pivot that follows.
        candidates: From a pivot to where the next dash may start: directions 360 and on.
        bend: Weight of each candidate after a dash of each direction.
        dot: What a dot adds to the picture.
    """

    ink: Float[np.ndarray, "k w w"]
    footprint: UInt8[np.ndarray, "k w w"]
    near: UInt8[np.ndarray, "k v v"]
    far: Int[np.ndarray, "a 2"]
    ahead: Int[np.ndarray, "k 2"]
    candidates: Int[np.ndarray, "c 2"]
    bend: Float[np.ndarray, "k c"]
    dot: Float[np.ndarray, "u u"]


@functools.cache
def shapes(design: Design) -> Shapes:
    """The templates of a design.

    Args:
        design: How the image looks.

    >>> len(shapes(pathfinder_design()).candidates)
    18
    """
    length, gap = design.dash, design.gap
    degrees = np.deg2rad(np.arange(DEGREES) - 180)
    candidates = _circle(length + gap)
    steps = np.arctan2(candidates[:, 0], candidates[:, 1])
    angles = np.concatenate([degrees, steps])
    drawn = np.concatenate([degrees, steps + math.pi])
    pictures = [_dash(design, angle) for angle in drawn]
    ink, footprint = (np.stack(part) for part in zip(*pictures, strict=True))
    # Ripples of the interpolation claim no room; without them the windows are smaller.
    claimed = np.rint(255 * np.clip(np.where(footprint > 0.02, footprint, 0), 0, 1))
    claimed = claimed.astype(np.uint8)
    ink, claimed = _cropped(np.maximum(ink, 0)), _cropped(claimed)
    turn = np.abs(angles[:, None] - steps[None, :])
    turn = np.minimum(turn, 2 * math.pi - turn)
    ahead = np.concatenate([_moved(degrees, length + gap), _moved(steps, length + 2 * gap)])
    return Shapes(
        ink=ink.astype(np.float32),
        footprint=claimed,
        near=np.stack([_dilated(np.pad(one, gap), gap) for one in claimed]),
        far=_moved(degrees, length),
        ahead=ahead,
        candidates=candidates,
        bend=(np.cos(np.minimum(design.continuity * turn, math.pi / 2)) ** 2).astype(np.float32),
        dot=_dot(design.dot).astype(np.float32),
    )


def pathfinder_design(**changes: Any) -> Design:
    """The design of the Long Range Arena's Pathfinder, 32 x 32 with paths of 14 dashes.

    Args:
        changes: Other values of some attributes.

    >>> pathfinder_design(dashes=6).dashes
    6
    """
    published = {
        "size": 32, "dashes": 14, "distractors": (0, 5), "distractor_dashes": 4, "dash": 2,
        "thickness": 0.5, "gap": 1, "continuity": 1.0, "spread": 7, "dot": 1.5, "contrast": 0.75,
    }  # fmt: skip
    return Design(**(published | changes))


def lanczos(into: int, out: int, /) -> Float[np.ndarray, "o i"]:
    """The matrix that resizes a row of pixels by Lanczos interpolation with three lobes.

    Args:
        into: Pixels before.
        out: Pixels after.

    References:
        Turkowski 1990, *Filters for common resampling tasks*.

    >>> lanczos(4, 4).round(6).tolist() == np.eye(4).tolist()
    True
    """
    ratio = into / out
    support = max(ratio, 1.0)
    centres = (np.arange(out) + 0.5) * ratio
    away = (np.arange(into)[None, :] + 0.5 - centres[:, None]) / support
    weights = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _dash(design: Design, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Ink and footprint of a dash from the middle of the window, before they are clipped."""
    half = design.dash + math.ceil(design.thickness) + design.gap
    centre = half * FINER
    end = _moved(np.array([angle]), design.dash * FINER)[0]
    canvas = _line(2 * centre + 1, centre, end, max(1, round(design.thickness * FINER)))
    resize = lanczos(2 * centre + 1, 2 * half + 1)
    wide = _dilated(canvas, design.gap * FINER)
    return resize @ canvas @ resize.T, resize @ wide @ resize.T


def _line(side: int, centre: int, end: np.ndarray, width: int) -> np.ndarray:
    canvas = np.zeros((side, side))
    steps = int(np.abs(end).max())
    share = np.arange(steps + 1) / max(steps, 1)
    rows, columns = (np.floor(centre + share * part + 0.5).astype(int) for part in end)
    canvas[rows, columns] = 1
    return _dilated(canvas, (width - 1) / 2)


def _circle(radius: int) -> np.ndarray:
    """Pixels on a circle round a pixel, at every pixel of its arc, each once."""
    angles = np.arange(0, 2 * math.pi, 1 / radius)
    places = np.floor(radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)).astype(int)
    return np.unique(places, axis=0)


def _moved(angles: np.ndarray, distance: float | int) -> np.ndarray:
    # The sine of pi is 1e-16 and not 0, and must not be rounded up to the next pixel.
    exact = distance * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.ceil(exact - 1e-9).astype(int)


def _dilated(picture: np.ndarray, radius: float | int) -> np.ndarray:
    """The greatest value within a disc, 0 outside of the picture."""
    reach = math.floor(radius)
    side = len(picture)
    room = np.pad(picture, reach)
    grown = np.zeros_like(picture)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            if (row - reach) ** 2 + (column - reach) ** 2 <= radius**2:
                np.maximum(grown, room[row : row + side, column : column + side], out=grown)
    return grown


def _cropped(pictures: np.ndarray) -> np.ndarray:
    """The pictures without the rows and columns at the rim that are empty in all of them."""
    centre = pictures.shape[1] // 2
    rows, columns = np.nonzero(pictures.max(axis=0))
    half = max(np.abs(rows - centre).max(), np.abs(columns - centre).max())
    inner = slice(centre - half, centre + half + 1)
    return pictures[:, inner, inner]


def _dot(radius: float | int) -> np.ndarray:
    half = math.ceil(radius) + 3
    places = np.arange(FINER * (2 * half + 1)) - FINER * half
    disc = places[:, None] ** 2 + places[None, :] ** 2 <= (FINER * radius) ** 2
    resize = lanczos(FINER * (2 * half + 1), 2 * half + 1)
    return resize @ disc @ resize.T
