"""Laws of several terms for the error of a network of width M and depth L.

    error(M, L) = sum_k a_k M^{-p_k} L^{-q_k},  a_k >= 0:    a/sqrt(M) + b/L,    a/sqrt(L M) + b/L

A reference of finite size has errors of its own: those of a random term add their squares,
a^2 (1/M + 1/M_ref), or take them away where its heads contain those of the network (nested),
a^2 (1/M - 1/M_ref); those of a bias have the same sign and cancel, b (1/L - 1/L_ref).
Trap: the theorems bound by sums, while bias and independent fluctuation compose in quadrature,
(a^2/M + b^2/L^2)^(1/2): a law says which, and both can be ranked.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from meanfield.rates.log_fit import nonnegative_log_fit
from meanfield.rates.refusals import positive_sizes, three_widths

# Width and depth: numbers, or one for each configuration.
Sizes = tuple[ArrayLike | float | int, ArrayLike | float | int]


class Term(NamedTuple):
    """M^(-width) L^(-depth); `random` terms fluctuate with the draw of heads, others are bias."""

    width: float
    depth: float
    random: bool


class Law(NamedTuple):
    """Terms that add up, or whose squares do (`quadrature`)."""

    terms: tuple[Term, ...]
    quadrature: bool = False


PATH, PRODUCT, STEP = Term(0.5, 0.0, True), Term(0.5, 0.5, True), Term(0.0, 1.0, False)
# One continuous path per head, and independent draws at every depth, with and without bias.
LAWS = {
    "a/sqrt(M)": Law((PATH,)),
    "a/sqrt(LM)": Law((PRODUCT,)),
    "a/sqrt(M) + b/L": Law((PATH, STEP)),
    "a/sqrt(LM) + b/L": Law((PRODUCT, STEP)),
}


def law_columns(
    law: Law,
    widths: ArrayLike,
    depths: ArrayLike,
    /,
    *,
    reference: Sizes = (np.inf, np.inf),
    nested: bool = False,
) -> Float[np.ndarray, "c k"]:
    """Terms of a law at each configuration, with what a finite reference adds or takes away.

    Args:
        law: The law.
        widths: Width of each configuration [c].
        depths: Depth of each configuration [c].
        reference: Width and depth of the reference, numbers or one per configuration.
        nested: The heads of a network are the first heads of its reference.

    Raises:
        ValueError: As `law_fit`.

    >>> law_columns(LAWS["a/sqrt(M)"], [1, 2, 5], [2, 2, 2], reference=(10, 2)).ravel() ** 2
    array([1.1, 0.6, 0.3])
    """
    sizes = [positive_sizes("widths", widths, number=np.size(widths))]
    sizes.append(positive_sizes("depths", depths, number=np.size(widths)))
    three_widths(sizes[0])
    against = _references(sizes, reference)
    columns = []
    for term in law.terms:
        own, floor = _at(term, *sizes), _at(term, *against)
        if nested and term.random and term.depth and (floor[sizes[1] != against[1]] > 0.0).any():
            raise ValueError(
                "heads drawn anew at every depth are nested only in a reference of their depth; "
                "give depths as the depth of the reference too, or nested=False"
            )
        columns.append(_column(term, own, floor, -1 if nested else 1))
    matrix = np.stack(columns, axis=1)
    if not independent(matrix):
        raise ValueError(
            f"the configurations do not tell the {len(law.terms)} terms of the law apart; add "
            "configurations of other widths and depths, at least one more than there are terms"
        )
    return matrix


def independent(columns: Float[np.ndarray, "c k"], /) -> bool:
    """Whether no column is a combination of the others.

    Args:
        columns: Terms of a law.

    >>> independent(np.array([[1.0, 2.0], [2.0, 4.0]]))
    False
    """
    unit = columns / np.linalg.norm(columns, axis=0)
    return bool(np.linalg.matrix_rank(unit, tol=1e-6) == columns.shape[1])


def fitted(
    law: Law, columns: Float[np.ndarray, "c k"], values: Float[np.ndarray, "n c"], /
) -> Float[np.ndarray, "n k"]:
    """Coefficients of a law for each row of positive values.

    Args:
        law: The law, of which only `quadrature` is asked.
        columns: Its terms.
        values: One row per sample.

    >>> fitted(LAWS["a/sqrt(M)"], np.array([[1.0], [0.5]]), np.array([[4.0, 2.0]]))
    array([[4.]])
    """
    power = 1 + law.quadrature
    return nonnegative_log_fit(columns**power, values**power) ** (1 / power)


def predicted(
    law: Law, columns: Float[np.ndarray, "c k"], coefficients: Float[np.ndarray, "n k"], /
) -> Float[np.ndarray, "n c"]:
    """Values of a law at each configuration.

    Args:
        law: The law, of which only `quadrature` is asked.
        columns: Its terms.
        coefficients: One row per sample.

    >>> predicted(Law((PATH, STEP), quadrature=True), np.ones((1, 2)), np.array([[3.0, 4.0]]))
    array([[5.]])
    """
    power = 1 + law.quadrature
    return (coefficients**power @ (columns**power).T) ** (1 / power)


def _references(sizes: list[np.ndarray], reference: Sizes) -> list[np.ndarray]:
    """Width and depth of the reference of each configuration, none below its own."""
    against = [np.broadcast_to(np.asarray(size, float), sizes[0].shape) for size in reference]
    for name, adjective, own, other in zip(
        ("width", "depth"), ("narrower", "shallower"), sizes, against, strict=True
    ):
        if not (other >= own).all():
            first = np.argmin(other >= own)
            raise ValueError(
                f"the reference is {adjective} than the networks under test: {name} {other[first]} "
                f"against {own[first]}; use a larger reference or leave those networks out"
            )
    return against


def _column(term: Term, own: np.ndarray, floor: np.ndarray, sign: int) -> np.ndarray:
    """A term at each configuration against its value at the reference, refused where it is 0."""
    column = np.sqrt(own**2 + sign * floor**2) if term.random else own - floor
    if not (column > 1e-9 * own).all():
        first = np.argmin(column > 1e-9 * own)
        raise ValueError(
            f"the term M^-{term.width} L^-{term.depth} vanishes against its reference at "
            f"configuration index {first}; use a larger reference, or a law without this term"
        )
    return column


def _at(term: Term, width: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return width**-term.width * depth**-term.depth
