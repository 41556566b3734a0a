"""Value of an observable at infinite width, with its error bar, from replicas at finite widths.

    E y_M = c_0 + c_1/M + c_2/M^2,    value at infinity c_0

The mean of M heads fluctuates by 1/sqrt(M), and what is smooth in it is biased by 1/M: the widest
network is wrong by c_1/M however many seeds it is given. The contrasts of the widths that the
expansion sends to zero are noise of known mean, so that regressing on them over replicas
(control variates) is generalised least squares with the covariance of the replicas; its interval
is exact for normal values, coupled across widths in whatever way.
Trap: rows are replicas. A draw that all replicas share (one data set, one reference) is no noise
here, and the limit found is the one given that draw.

Reference:
    Rao, The theory of least squares when the parameters are stochastic and its application to the
    analysis of growth curves, Biometrika 52, 1965, section 3.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import linalg, stats

from meanfield.rates.refusals import (
    confidence_level,
    finite_replicas,
    positive_sizes,
    three_widths,
)

Covariance = Literal["replicas", "independent", "nested"]


class WidthLimit(NamedTuple):
    """Limit `value` in `[low, high]`, per component, at the level of confidence asked for.

    `bias` is c_1, the widest network being wrong by `bias / M`; `order` the highest power of 1/M
    kept; `omitted` the p-value of the first power left out being zero, NaN where the widths are
    too few to tell. A small `omitted` says that the narrowest widths are not in the expansion's
    reach: leave them out.
    """

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]
    bias: Float[np.ndarray, "..."]
    order: Int[np.ndarray, "..."]
    omitted: Float[np.ndarray, "..."]


class _Expansion(NamedTuple):
    """Coefficients [k d] in powers of min(M)/M, their standard errors, degrees of freedom [d]."""

    coefficients: np.ndarray
    errors: np.ndarray
    freedom: np.ndarray


def infinite_width(
    values: ArrayLike,
    widths: ArrayLike,
    /,
    *,
    order: int | None = None,
    covariance: Covariance = "replicas",
    level: float = 0.01,
    confidence: float = 0.95,
) -> WidthLimit:
    """Observables at M = infinity by their expansion in 1/M, each component with its t interval.

    Args:
        values: Observables [s w ...], one row per replica, one column per width. Replicas are
            independent; the widths of one replica may be nested, coupled or independent.
        widths: Increasing widths [w], at least three.
        order: Highest power of 1/M, 0 to 2. By default 1, and 2 for the components whose c_2
            differs from zero by its t test at `level`.
        covariance: Of the widths of one replica. "replicas" learns it from them and needs
            w + 2 of these. The others fix the weights and leave the length of the interval to the
            replicas, so that they are exact for two replicas on: "independent" takes it as
            proportional to 1/M, "nested" (the first M of the same heads) to 1/max(M, M').
        level: Of the test that asks for c_2, in (0, 1). It is small because a c_2 kept by chance is
            a large one: at 0.05 intervals of 95 % were measured to hold the limit 93 % of the time.
        confidence: Level of the two-sided interval of each component alone, in (0, 1).

    Returns:
        The limit of shape [...].

    Raises:
        ValueError: Fewer than three widths, widths that do not increase, too few replicas, values
            that are not finite, a level outside (0, 1).

    References:
        Rao 1965, section 3.

    >>> noise = np.random.default_rng(0).normal(size=(9, 3)) / 1000
    >>> limit = infinite_width(2 + 1 / np.array([4, 8, 16]) + noise, [4, 8, 16])
    >>> bool(limit.low < 2 < limit.high), round(float(limit.bias), 1), int(limit.order)
    (True, 1.0, 1)
    """
    quantile = 0.5 + confidence_level(confidence) / 2
    rows = finite_replicas("values", values, columns="width", least=2)
    sizes = positive_sizes("widths", widths, number=rows.shape[1])
    _admissible(sizes, len(rows), order, covariance, level)
    cells, narrowness = rows.reshape(*rows.shape[:2], -1), sizes[0] / sizes
    # One power more than can be kept, to test it.
    fits = [_expansion(cells, narrowness, k, covariance) for k in range(min(4, sizes.size))]
    limit = _kept(fits, np.abs(cells).max(axis=(0, 1)), order, level, quantile)
    limit = limit._replace(bias=limit.bias * sizes[0])
    return WidthLimit(*(entry.reshape(rows.shape[2:]) for entry in limit))


def _kept(
    fits: list[_Expansion], scale: np.ndarray, order: int | None, level: float, quantile: float
) -> WidthLimit:
    """The limit of each component at the order given, or at the one its values ask for."""
    unknown = np.full_like(scale, np.nan)
    doubts = np.array([*(_doubt(fit, scale) for fit in fits), unknown])
    chosen = np.where(doubts[2] < level, 2, 1) if order is None else np.full(scale.shape, order)
    here = np.arange(scale.size)
    value = np.array([fit.coefficients[0] for fit in fits])[chosen, here]
    error = np.array([fit.errors[0] for fit in fits])[chosen, here]
    freedom = np.array([fit.freedom for fit in fits])[chosen, here]
    slopes = [fit.coefficients[1] if len(fit.coefficients) > 1 else 0 * scale for fit in fits]
    half = stats.t.ppf(quantile, freedom) * error
    return WidthLimit(
        value=value,
        low=value - half,
        high=value + half,
        bias=np.array(slopes)[chosen, here],
        order=chosen,
        omitted=doubts[chosen + 1, here],
    )


def _expansion(
    rows: np.ndarray, narrowness: np.ndarray, degree: int, covariance: Covariance
) -> _Expansion:
    """Least squares for the powers 0 to `degree` of the narrowness, over rows [s w d]."""
    basis = narrowness[:, None] ** np.arange(degree + 1)
    pairs = np.minimum.outer(narrowness, narrowness)
    weighted = linalg.solve(
        pairs if covariance == "nested" else np.diag(narrowness), basis, assume_a="pos"
    )
    weights = linalg.solve(basis.T @ weighted, weighted.T, assume_a="pos")
    fits = np.einsum("kw,swd->dsk", weights, rows)
    design = np.ones((*fits.shape[:2], 1))
    if covariance == "replicas":
        idle = linalg.null_space(basis.T)
        controls = np.einsum("wj,swd->dsj", idle, rows)
        spread = controls.std(axis=1, keepdims=True)
        # A contrast that does not vary says nothing about the noise, and would pass for the mean.
        varies = spread > 1e-13 * np.abs(rows).max(axis=(0, 1))[:, None, None]
        controls = np.where(varies, controls / np.where(varies, spread, 1.0), 0.0)
        design = np.concatenate([design, controls], axis=2)
    inverse = np.linalg.pinv(design)
    freedom = len(rows) - np.linalg.matrix_rank(design)
    coefficients = inverse @ fits
    residuals = fits - design @ coefficients
    variances = np.sum(residuals**2, axis=1) / freedom[:, None]
    errors = np.sqrt(variances * np.sum(inverse[:, 0] ** 2, axis=1)[:, None])
    return _Expansion(coefficients[:, 0].T, errors.T, freedom)


def _doubt(fit: _Expansion, scale: np.ndarray) -> np.ndarray:
    """p-value of the highest coefficient being zero; round-off alone never counts against it."""
    least = 1e-12 * scale + np.finfo(float).tiny
    ratio = np.abs(fit.coefficients[-1]) / np.maximum(fit.errors[-1], least)
    return 2 * stats.t.sf(ratio, fit.freedom)


def _admissible(
    sizes: np.ndarray, replicas: int, order: int | None, covariance: str, level: float
) -> None:
    """Refuses widths, orders and numbers of replicas that carry no estimate."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    three_widths(sizes)
    if not (np.diff(sizes) > 0.0).all():
        raise ValueError(
            f"widths must increase, got {sizes.tolist()}; sort them, with the columns of values"
        )
    if covariance not in ("replicas", "independent", "nested"):
        raise ValueError(
            f"covariance must be 'replicas', 'independent' or 'nested', got {covariance!r}"
        )
    if covariance == "replicas" and replicas < sizes.size + 2:
        raise ValueError(
            f"the covariance of {sizes.size} widths needs >= {sizes.size + 2} replicas, got "
            f"{replicas}; run more seeds, or say covariance='independent' or 'nested'"
        )
    if order is not None and order not in (0, 1, 2):
        raise ValueError(f"order must be 0, 1 or 2, got {order}; more needs wider networks instead")
