"""Choice among laws by how well they predict a configuration that they have not seen.

    score = rms_c (log error_c - log law_{-c}(c)),    law_{-c} fitted without configuration c

Chosen is the law of the fewest terms whose score is at most one standard error above the lowest,
the error that of the difference of the two scores over bootstrap resamples of the replicas.
Leave-one-out and not an information criterion, because the laws are bounds and none is true, and
because the columns of nested replicas are not independent: both break a likelihood. Not a log-log
slope, because a law of two terms has none.
Trap: with nested replicas a configuration shares noise with its neighbours, which favours laws of
more terms; the standard error leans the other way, and the shares of wins show what is left.

Reference:
    Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from meanfield.rates.laws import error_samples
from meanfield.rates.terms import LAWS, Law, Sizes, fitted, independent, law_columns, predicted


class Evidence(NamedTuple):
    """What speaks for one law.

    `score` is its error of prediction (0.1 is 10 %), `excess` that above the lowest score, and
    `excess_error` the standard error of the excess. `wins` is the share of resamples in which it
    predicts best, and `coefficients` are those of all configurations, one per term.
    """

    name: str
    score: float
    excess: float
    excess_error: float
    wins: float
    coefficients: Float[np.ndarray, " k"]


class Ranking(NamedTuple):
    """The law chosen, and the evidence of each, the lowest score first.

    `rivals` are the other laws within one standard error of the lowest score. A rival that has
    the terms of the law chosen and one more is spared by it; any other rival is undecided.
    """

    chosen: str
    rivals: tuple[str, ...]
    evidence: tuple[Evidence, ...]


def law_ranking(
    key: np.random.Generator,
    errors: ArrayLike,
    widths: ArrayLike,
    depths: ArrayLike,
    /,
    laws: Mapping[str, Law] = LAWS,
    *,
    reference: Sizes = (np.inf, np.inf),
    nested: bool = False,
    resamples: int = 199,
) -> Ranking:
    """Laws ranked by leave-one-configuration-out error of prediction.

    Args:
        key: Generator of the resampling.
        errors: Positive errors [s c], one row per replica, one column per configuration.
        widths: Width of each configuration [c], at least three different ones.
        depths: Depth of each configuration [c].
        laws: The laws to rank, by name.
        reference: As in `law_fit`.
        nested: As in `law_fit`.
        resamples: Of the bootstrap.

    Returns:
        The ranking.

    Raises:
        ValueError: As `law_fit`, for any of the laws and without any of the configurations; laws
            that are one and the same at these configurations; fewer than two laws.

    >>> errors = np.tile(3 / np.sqrt([4, 8, 16, 8]) + 2 / np.array([2, 4, 2, 1]), (8, 1))
    >>> law_ranking(np.random.default_rng(0), errors, [4, 8, 16, 8], [2, 4, 2, 1]).chosen
    'a/sqrt(M) + b/L'
    """
    if len(laws) < 2:
        raise ValueError(f"a ranking needs >= 2 laws, got {len(laws)}; use law_fit for one")
    columns = {
        name: law_columns(law, widths, depths, reference=reference, nested=nested)
        for name, law in laws.items()
    }
    _distinct(laws, columns)
    rows = error_samples(key, errors, np.size(widths), resamples=resamples)
    scores = np.stack([_scores(name, laws[name], columns[name], rows) for name in laws])
    found = [fitted(laws[name], columns[name], rows[:1])[0] for name in laws]
    return _ranking(list(laws), found, scores)


def _ranking(names: list[str], found: list[np.ndarray], scores: np.ndarray) -> Ranking:
    """The ranking by scores [laws n], the first of which is that of the errors themselves."""
    terms = np.array([coefficients.size for coefficients in found])
    # Two laws that differ by round-off alone are tied: the one of fewer terms is first.
    order = np.lexsort(np.stack([terms, np.maximum(scores[:, 0], 1e-9).round(12)]))
    excess = scores - scores[order[0]]
    spread = excess[:, 1:].std(axis=1, ddof=1)
    wins = np.bincount(np.argmin(scores[:, 1:], axis=0), minlength=len(names))
    near = [one for one in order if excess[one, 0] <= spread[one] + 1e-9]
    chosen = min(near, key=lambda one: terms[one])
    evidence = [
        Evidence(
            name=names[one],
            score=float(scores[one, 0]),
            excess=float(excess[one, 0]),
            excess_error=float(spread[one]),
            wins=float(wins[one] / wins.sum()),
            coefficients=found[one],
        )
        for one in order
    ]
    rivals = tuple(names[one] for one in near if one != chosen)
    return Ranking(names[chosen], rivals, tuple(evidence))


def _scores(name: str, law: Law, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Root mean square over configurations of the log error of prediction, for rows [n c]."""
    total = np.zeros(len(rows))
    for left_out in range(len(columns)):
        seen = np.delete(columns, left_out, axis=0)
        if not independent(seen):
            raise ValueError(
                f"without configuration index {left_out} the terms of {name!r} are no longer told "
                "apart; add a configuration of another width or depth like it"
            )
        coefficients = fitted(law, seen, np.delete(rows, left_out, axis=1))
        expected = predicted(law, columns[[left_out]], coefficients)[:, 0]
        total += np.log(rows[:, left_out] / expected) ** 2
    return np.sqrt(total / len(columns))


def _distinct(laws: Mapping[str, Law], columns: Mapping[str, np.ndarray]) -> None:
    """Refuses two laws that no configuration tells apart."""
    for one, other in combinations(laws, 2):
        if laws[one].quadrature != laws[other].quadrature:
            continue
        pair = [columns[name] / np.linalg.norm(columns[name], axis=0) for name in (one, other)]
        if pair[0].shape == pair[1].shape and np.allclose(*pair, rtol=1e-6, atol=0.0):
            raise ValueError(
                f"{one!r} and {other!r} are the same law at these configurations; add depths to "
                "tell them apart, or rank one of them"
            )
