r"""Errors of replicas against a reference, sup over time, in the form that `rates` fits.

    predictions   sup_t (mean_q |f_t(q) - f_t*(q)|^2)^{1/2}          q over probes and outputs
    risk          sup_t |R_t - R_t*|
    heads         sup_t (mean_l d(rho_{t,l}, rho_{t,l}*)^2)^{1/2}    l over layers, d any distance

One trap: independence over depth does nothing for the law of heads at one depth. Its error is of
order 1/sqrt(M) in either coupling (for sliced distances, MMD and energy distance; of W_p in
dimension p it is slower still, M^{-1/p}).

References:
    Chizat 2025, arXiv 2509.10167.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from meanfield.measure.chaos import Replicas, Trajectory
from meanfield.measure.references import Reference, check_wider, effective_width


class Errors(NamedTuple):
    """Errors of s replicas at c configurations, as `rates.law_fit` and `rates.law_ranking` take.

    Attributes:
        predictions: Error of the predictions [s c].
        risk: Error of the risk [s c].
        heads: Error of the law of heads [s c]; None without clouds or a distance.
        widths: Width of each configuration [c].
        depths: Depth of each configuration [c].
        reference: Effective width of the reference, and its depth for each configuration [c].
        nested: Whether the reference holds the heads under test.
    """

    predictions: Float[np.ndarray, "s c"]
    risk: Float[np.ndarray, "s c"]
    heads: Float[np.ndarray, "s c"] | None
    widths: Float[np.ndarray, " c"]
    depths: Float[np.ndarray, " c"]
    reference: tuple[float, Float[np.ndarray, " c"]]
    nested: bool

    @property
    def effective_widths(self) -> Float[np.ndarray, " c"]:
        """Abscissae of a log-log slope, corrected for the reference (`effective_width`).

        Infinite for heads that are all of the reference's: between two depths only bias is left.
        """
        width, found = self.reference[0], np.full(self.widths.shape, np.inf)
        others = (self.widths != width) | (not self.nested)
        if others.any():
            found[others] = effective_width(self.widths[others], width, nested=self.nested)
        return found


def sup_errors(
    runs: Replicas,
    reference: Reference,
    /,
    *,
    distance: Callable[[Any, Any], Any] | None = None,
) -> Errors:
    """Errors of every replica at every width and depth, sup over the save times.

    Args:
        runs: The replicas under test.
        reference: What they are compared with. Networks that are their own reference are left out.
        distance: Between two clouds [m p], [n p], called for every replica, time and layer: give
            it compiled, such as `jax.jit(partial(sliced_wasserstein, key))`. A layer is compared
            with the layer of the reference at the same share of the depth.

    Returns:
        The errors.

    Raises:
        ValueError: If the reference is narrower, shallower or of other times, probes or replicas,
            if it lacks a depth, or if there are no clouds to take the distance of.

    References:
        Chizat 2025, arXiv 2509.10167.

    >>> from meanfield.measure.references import exact_reference
    >>> ones, exact = np.ones((5, 2, 3)), Trajectory(np.zeros((2, 3)), np.ones(2))
    >>> runs = Replicas((4,), (1,), (Trajectory(ones, ones[..., 0]),), True)
    >>> sup_errors(runs, exact_reference(exact)).predictions.ravel().tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    _check_reference(runs, reference)
    rows, sizes = [], []
    for width, depth, own in zip(runs.widths, runs.depths, runs.trajectories, strict=True):
        against, floor = _at_depth(reference, depth)
        if reference.nested and (width, depth) == (reference.width, floor):
            continue
        _check_comparable(own, against)
        sizes.append((width, depth, floor))
        rows.append(_configuration(own, against, distance))
    if not rows:
        raise ValueError(
            f"every network is its own reference of width {reference.width:g}; add narrower ones"
        )
    widths, depths, floors = np.array(sizes, dtype=float).T
    predictions, risk, heads = zip(*rows, strict=True)
    return Errors(
        predictions=np.stack(predictions, axis=1),
        risk=np.stack(risk, axis=1),
        heads=None if distance is None else np.stack(heads, axis=1),
        widths=widths,
        depths=depths,
        reference=(reference.effective, floors),
        nested=reference.nested,
    )


def over_widths(runs: Replicas, /, *, depth: int | None = None) -> tuple[Trajectory, np.ndarray]:
    """Predictions [s w t ...] and risk [s w t] of the widths of one depth, and these widths.

    They are what `rates.infinite_width` takes.

    Args:
        runs: The runs.
        depth: Which depth; needed where there are several.

    Raises:
        ValueError: If there is no such depth, or several and none is named.

    >>> one = Trajectory(np.ones((5, 2, 3)), np.ones((5, 2)))
    >>> over_widths(Replicas((4, 8), (1, 1), (one, one), True))[0].predictions.shape
    (5, 2, 2, 3)
    """
    present = sorted(set(runs.depths))
    if depth not in present and (depth is not None or len(present) > 1):
        raise ValueError(f"depth must be one of {present}, got {depth}")
    chosen = [place for place, own in enumerate(runs.depths) if depth in (None, own)]
    seen = [runs.trajectories[place] for place in chosen]
    values = Trajectory(
        np.stack([one.predictions for one in seen], axis=1),
        np.stack([one.risk for one in seen], axis=1),
    )
    return values, np.array([runs.widths[place] for place in chosen])


def _configuration(
    own: Trajectory, against: Trajectory, distance: Callable[[Any, Any], Any] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The three errors of each replica [s] at one width and depth."""
    gaps = np.asarray(own.predictions) - np.asarray(against.predictions)
    squares = (gaps**2).reshape(*gaps.shape[:2], -1)
    risk = np.abs(np.asarray(own.risk) - np.asarray(against.risk))
    heads = None if distance is None else _heads(own.clouds, against.clouds, distance)
    return np.sqrt(squares.mean(axis=2)).max(axis=1), risk.max(axis=1), heads


def _heads(own: Any, against: Any, distance: Callable[[Any, Any], Any]) -> np.ndarray:
    if own is None or against is None:
        raise ValueError(
            "a distance needs the clouds of the runs and of the reference, got None; save "
            "clouds(particles) in the trajectory, or leave the distance out"
        )
    seeds, times, depth = own.shape[:3]
    # The middle of a layer decides, so that of equal depths each layer meets itself.
    layers = ((np.arange(depth) + 0.5) / depth * against.shape[2]).astype(int)
    found = np.empty((seeds, times, depth))
    for seed, time, layer in np.ndindex(found.shape):
        other = against[seed % len(against), time, layers[layer]]
        found[seed, time, layer] = distance(own[seed, time, layer], other)
    return np.sqrt(np.mean(found**2, axis=2)).max(axis=1)


def _at_depth(reference: Reference, depth: int) -> tuple[Trajectory, float]:
    """What a network of this depth is compared with, and the depth of that."""
    if reference.limit:
        (floor,), (against,) = reference.depths, reference.trajectories
        if floor < depth:
            raise ValueError(
                f"the reference is shallower than the networks under test: depth {floor} against "
                f"{depth}; use a deeper reference or leave those networks out"
            )
        return against, float(floor)
    if depth not in reference.depths:
        raise ValueError(
            f"the reference has depths {list(reference.depths)}, not {depth}; run it at the "
            "depths under test too, or name one of its depths as the limit"
        )
    place = reference.depths.index(depth)
    return reference.trajectories[place], float(depth)


def _check_reference(runs: Replicas, reference: Reference) -> None:
    check_wider(max(runs.widths), reference.width)
    if reference.nested and not runs.nested:
        raise ValueError(
            "widths are not nested: the reference holds the heads of other runs; give the runs it "
            "was made of, or compare with mean_reference"
        )


def _check_comparable(own: Trajectory, against: Trajectory) -> None:
    shapes = np.shape(own.predictions), np.shape(against.predictions)
    if shapes[1][0] not in (1, shapes[0][0]):
        raise ValueError(
            f"the reference must hold one network or one for each of {shapes[0][0]} replicas, got "
            f"{shapes[1][0]}; give the runs it was made of, or compare with mean_reference"
        )
    if shapes[0][1:] != shapes[1][1:]:
        raise ValueError(
            "runs and reference must save the same times and probes, got predictions of shapes "
            f"{list(shapes[0])} and {list(shapes[1])}; a run that ended early has fewer times"
        )
