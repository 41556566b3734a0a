"""Exact optimal transport, by assignment or by linear program, or by POT for unequal weights.

    min_P sum_ij P_ij C_ij    over P >= 0 with row sums a_i and column sums b_j

Where a_i = 1/m and b_j = 1/n, in units of 1/lcm(m, n) the vertices P are matrices of whole
numbers, which makes the value of a plan exact. Trap: a solver's tolerance is relative to the
largest cost, so distances within clusters that lie far apart (heads that collapsed onto a few) come
out wrong unless the costs are clipped.

Reference:
    Peyre and Cuturi, Computational Optimal Transport, arXiv 1803.00567, chapter 3.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.optimize import linprog

from meanfield.measure.assignment import assignment_cost

# Measured in 64 dimensions: below this ratio of the squared common multiple to m n, repeating the
# points is the faster of the two exact methods, at every size tried from 24 x 40 to 1000 x 2000.
_ASSIGNMENT_RATIO = 16


def transport_cost(cost: Float[np.ndarray, "m n"], /) -> float:
    """Least mean cost of moving uniform weights over the rows to uniform weights over the columns.

    Args:
        cost: Finite costs >= 0, at least one.

    Returns:
        The least mean cost: W_p^p, where the costs are distances to the power p.

    Raises:
        RuntimeError: The linear program failed.

    >>> transport_cost(np.array([[0.0, 1.0], [5.0, 2.0]]))
    1.0
    """
    m, n = cost.shape
    multiple = math.lcm(m, n)
    if not cost.any():
        return 0.0
    if multiple**2 <= _ASSIGNMENT_RATIO * m * n:
        cost = np.repeat(np.repeat(cost, multiple // m, axis=0), multiple // n, axis=1)
        return assignment_cost(cost)
    ceiling, factor, value = cost.max(), 100.0, math.inf
    cap = ceiling
    # The program resolves 1e-10 of the largest cost, too coarse for clusters far apart. Clipping
    # the costs sharpens it, and a plan that avoids the clipped ones is optimal for the true ones.
    while True:
        plan = _program_plan(np.minimum(cost, cap) / cap)
        value = min(value, float(np.vdot(plan, cost)) / multiple)
        if plan[cost > cap].any():
            factor *= 10.0
        else:
            ceiling = cap
        cap = factor * value
        if not 0.0 < 2.0 * cap < ceiling:
            return value


def weighted_transport_cost(
    cost: Float[np.ndarray, "m n"],
    rows: Float[np.ndarray, " m"],
    columns: Float[np.ndarray, " n"],
    /,
) -> float:
    """Least cost of moving weights over the rows to weights over the columns, by POT.

    Weights that are all equal are moved by `transport_cost`, which needs no POT.

    Args:
        cost: Finite costs >= 0, at least one.
        rows: Weights >= 0 of sum 1.
        columns: Weights >= 0 of sum 1.

    Returns:
        The least cost.

    Raises:
        ImportError: POT is not installed.
        RuntimeError: The network simplex failed.

    >>> weighted_transport_cost(np.array([[0.0, 1.0]]), np.ones(1), np.array([0.25, 0.75]))
    0.75
    """
    # A point without weight is no point of the measure.
    cost = cost[rows > 0][:, columns > 0]
    rows, columns = rows[rows > 0] / rows.sum(), columns[columns > 0] / columns.sum()
    if (rows == rows[0]).all() and (columns == columns[0]).all():
        return transport_cost(cost)
    try:
        import ot
    except ImportError as error:
        raise ImportError(
            "exact transport of unequal weights needs POT; pip install 'meanfield[ot]', or use "
            "sliced_wasserstein (wasserstein_1d on the line), which do not"
        ) from error
    plan, log = ot.emd(rows, columns, np.ascontiguousarray(cost), numItermax=10**8, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"transport of {len(rows)} x {len(columns)} points: {log['warning']}")
    return float(np.vdot(plan, cost))


def _program_plan(cost: np.ndarray) -> np.ndarray:
    """Cheapest plan in units of 1/lcm(m, n): a vertex, so a matrix of whole numbers."""
    m, n = cost.shape
    rows, columns = math.lcm(m, n) // m, math.lcm(m, n) // n
    # One marginal constraint is the sum of the others; keeping it would make the rows dependent.
    by_row = sparse.kron(sparse.eye_array(m), np.ones((1, n)), format="csr")
    by_column = sparse.kron(np.ones((1, m)), sparse.eye_array(n), format="csr")[:-1]
    solution = linprog(
        cost.ravel(),
        A_eq=sparse.vstack([by_row, by_column], format="csr"),
        b_eq=np.concatenate([np.full(m, rows), np.full(n - 1, columns)]),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    plan = np.rint(solution.x if solution.success else np.zeros(m * n)).reshape(m, n)
    if (plan.sum(axis=1) != rows).any() or (plan.sum(axis=0) != columns).any():
        raise RuntimeError(f"transport program of {m} x {n} points failed: {solution.message}")
    return plan
