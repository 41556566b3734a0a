r"""Coefficients of ROCK4, a fourth-order stabilised method, found here and not tabulated.

    R_s(z) = w(z) P_{s-4}(z) = 1 + z + z^2/2 + z^3/6 + z^4/24 + O(z^5),    |R_s| <= d

on -c s^2 <= z <= -5 (c = 0.35 for d = 0.95, 0.29 for d = 1/3), where w has two pairs of complex
zeros and the P_j are orthogonal with respect to w^2 / sqrt(1 - x^2) on that interval, x in [-1, 1].
P is a three-term recursion, w a Runge-Kutta step of four stages after it that completes the eight
order conditions. The paper has d = 0.95, and another embedded method.

One trap: the conditions are those of autonomous fields.

References:
    Abdulle, Fourth order Chebyshev methods with recurrence relation, SIAM J. Sci. Comput. 23
    (2002), sections 2 and 3.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import optimize

RIGHT_END = 5.0
# Trees of a B-series up to order four: t, [t], [tt], [[t]], [ttt], [t[t]], [[tt]], [[[t]]].
ORDER = np.array([1, 1 / 2, 1 / 3, 1 / 6, 1 / 4, 1 / 8, 1 / 12, 1 / 24])
TALL = [0, 1, 3, 7]
BUSHY = [2, 4, 5, 6]
# Where the search for the zeros and the last four stages starts, at 20 stages.
_ZEROS = np.array([2.47, 1.31, 0.29, 3.54, 0.345])
_LAST = np.array(
    [0.2717, -0.1135, 0.4262, -0.0507, -0.0164, 0.7732, 0.0275, 0.2854, 0.2519, 0.1133]
)
_FIRST_DEGREE = 20
_GROWTH = 1.12


class Scheme(NamedTuple):
    """Coefficients of one number of stages.

    `recursion` has rows (mu, nu, kappa) of y_j = mu h F(y_{j-1}) + nu y_{j-1} + kappa y_{j-2};
    `matrix` and `weights` are those of the last four stages, `error` those of the estimate.
    """

    interval: float
    recursion: np.ndarray
    matrix: np.ndarray
    weights: np.ndarray
    error: np.ndarray


def _inside(series):
    """B-series of h F(y), from that of y."""
    one, chain = series[0], series[1]
    return np.array([1, one, one**2, chain, one**3, one * chain, series[2], series[3]])


class _Polynomial:
    """w and the recursion of P, from the zeros of w and the interval."""

    def __init__(self, stages, zeros, interval):
        p, q, r, t = zeros
        self.pairs = np.polymul([1, 2 * p, p * p + q * q], [1, 2 * r, r * r + t * t])
        self.half = (interval - RIGHT_END) / 2
        # Gauss-Chebyshev nodes integrate w^2 P_i P_j exactly.
        nodes = np.cos((np.arange(stages + 2) + 0.5) * np.pi / (stages + 2))
        self.weight = self.pairs / self.pairs[-1]
        mass = np.polyval(self.weight, self.half * (nodes - 1) - RIGHT_END) ** 2
        self.recursion = self._recursion(nodes, mass / mass.sum(), stages - 4)

    def _recursion(self, nodes, mass, degree):
        """Stieltjes' procedure, the polynomials then divided by their values at z = 0."""
        rows, origin = [], 1 + RIGHT_END / self.half
        before, now, previous = np.zeros_like(nodes), np.ones_like(nodes), 0.0
        at_before, at_now = 0.0, 1.0
        for _ in range(degree):
            middle = mass @ (nodes * now**2)
            following = (nodes - middle) * now - previous * before
            size = np.sqrt(mass @ following**2)
            at_next = ((origin - middle) * at_now - previous * at_before) / size
            scale = size * at_next
            slope = at_now / self.half / scale
            rows.append((slope, (origin - middle) * at_now / scale, -previous * at_before / scale))
            before, now, previous = now, following / size, size
            at_before, at_now = at_now, at_next
        return np.array(rows)

    def series(self):
        """B-series of P."""
        before, now = np.zeros(8), np.zeros(8)
        for mu, nu, kappa in self.recursion:
            before, now = now, mu * _inside(now) + nu * now + kappa * before
        return now

    def chain(self, z):
        """P(z)."""
        before, now = np.zeros_like(z), np.ones_like(z)
        for mu, nu, kappa in self.recursion:
            before, now = now, (mu * z + nu) * now + kappa * before
        return now

    def taylor(self):
        """Coefficients of z to z^4 in R."""
        inner = np.concatenate([[1.0], self.series()[TALL]])
        return np.convolve(inner, self.weight[::-1])[1:5]


def _polynomial(stages, damping, guess):
    """Zeros of w and interval / s^2 such that R is of order four and reaches the damping."""

    def at(unknown):
        return _Polynomial(stages, unknown[:4], unknown[4] * stages**2)

    def missed(unknown):
        found = at(unknown)
        left = -unknown[4] * stages**2
        edge = abs(found.chain(left) * np.polyval(found.weight, left)) - damping
        return np.append(found.taylor() / ORDER[TALL] - 1, edge)

    found = optimize.root(missed, guess, tol=1e-12)
    if np.abs(found.fun).max() > 1e-8:
        raise ValueError(f"no polynomial of order four was found for {stages} stages")
    return at(found.x), found.x


def _last_stages(unknown):
    matrix = np.zeros((4, 4))
    matrix[np.tril_indices(4, -1)] = unknown[:6]
    return matrix, unknown[6:]


def _after(series, matrix, weights):
    """B-series of h F at the last four stages and at the end, and of the end."""
    slopes = np.zeros((5, 8))
    for i in range(4):
        slopes[i] = _inside(series + matrix[i] @ slopes[:4])
    end = series + weights @ slopes[:4]
    slopes[4] = _inside(end)
    return slopes, end


def _completed(polynomial, guess):
    """Four stages with the polynomial w that satisfy the conditions; two unknowns are free."""
    series = polynomial.series()

    def missed(unknown):
        matrix, weights = _last_stages(unknown)
        powers = np.stack([np.linalg.matrix_power(matrix, k).sum(1) for k in range(4)])
        end = _after(series, matrix, weights)[1]
        tall = powers @ weights / polynomial.weight[-2::-1] - 1
        return np.concatenate([tall, end[BUSHY] / ORDER[BUSHY] - 1])

    unknown = guess
    value = missed(unknown)
    for _ in range(50):
        if np.abs(value).max() < 1e-12:
            return unknown
        columns = [(missed(unknown + 1e-7 * e) - value) / 1e-7 for e in np.eye(10)]
        step = np.linalg.lstsq(np.stack(columns, 1), -value, rcond=1e-10)[0]
        unknown = unknown + step * min(1.0, 0.3 / np.abs(step).max())
        value = missed(unknown)
    raise ValueError(f"the order conditions were missed by {np.abs(value).max():.1e}")


def _scheme(stages, damping, zeros, last):
    polynomial, zeros = _polynomial(stages, damping, zeros)
    last = _completed(polynomial, last)
    matrix, weights = _last_stages(last)
    interval = zeros[4] * stages**2
    error = _estimate(polynomial, matrix, weights, interval)
    return Scheme(interval, polynomial.recursion, matrix, weights, error), zeros, last


def _estimate(polynomial, matrix, weights, interval):
    """Weights of F0, of the last four slopes and of F1 in the error estimate E(z).

    They vanish up to order three, which leaves two: a quarter of z^4/24 is their size, and the
    mean of (E(z)/z)^2 over the stable interval is least, for stiff modes are noise to an estimate.
    """
    start, (slopes, _) = _inside(np.zeros(8)), _after(polynomial.series(), matrix, weights)
    slopes = np.vstack([start, slopes])
    free = np.linalg.svd(slopes[:, :4].T)[2][-2:]
    z = -interval * np.linspace(0.0, 1.0, 40 * len(polynomial.recursion) + 400)
    damped = np.zeros((6, len(z)))
    damped[0], base = 1.0, polynomial.chain(z)
    for i in range(5):
        row = matrix[i] if i < 4 else weights
        damped[1 + i] = base + z * (row @ damped[1:5])
    kept = free @ damped
    best = np.linalg.solve(kept @ kept.T, free @ slopes[:, 7])
    error = best @ free
    return error * (ORDER[7] / 4) / (error @ slopes[:, 7])


@functools.cache
def schemes(most: int, damping: float, /) -> tuple[Scheme, ...]:
    """Schemes of 5 to `most` stages, each found from its neighbour."""
    degrees = {_FIRST_DEGREE, 5}
    size = 5.0
    while size < most:
        size = max(size + 1, size * _GROWTH)
        degrees.add(min(round(size), most))
    found = {}
    for way in (1, -1):
        zeros, last = _ZEROS, _LAST
        for stages in sorted(degrees, reverse=way < 0):
            if way * stages >= way * _FIRST_DEGREE:
                found[stages], zeros, last = _scheme(stages, damping, zeros, last)
    return tuple(found[stages] for stages in sorted(found) if stages <= most)
