import math

import numpy as np
import pytest
from distance_family import assert_round_off, two_clouds
from scipy.optimize import linear_sum_assignment

from meanfield.measure.transport import transport_cost

# By assignment, by assignment of repeated rows and columns, and by the linear program.
SIZES = [(5, 5), (4, 6), (1, 8), (5, 7), (1, 20), (12, 11)]


def distances(x, y):
    return np.linalg.norm(x[:, None] - y[None], axis=-1)


def repeated(cost):
    m, n = cost.shape
    multiple = math.lcm(m, n)
    return np.repeat(np.repeat(cost, multiple // m, axis=0), multiple // n, axis=1)


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("p", [1, 2, 6])
def test_against_assignment(m, n, p):
    """Independent library: scipy's assignment of the points repeated to their common number."""
    cost = distances(*two_clouds(m, n, 3)) ** p
    rows, columns = linear_sum_assignment(repeated(cost))
    assert_round_off(transport_cost(cost), repeated(cost)[rows, columns].mean())


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_repeated_costs(m, n):
    """Invariance: repeated rows and columns are the same two measures, by another method."""
    cost = distances(*two_clouds(m, n, 3))
    assert_round_off(transport_cost(np.repeat(cost, 13, axis=0)), transport_cost(cost))


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("far", [2.0, 2.0**10, 2.0**20])
@pytest.mark.parametrize("p", [1, 2, 4])
def test_clusters_far_apart(m, n, far, p):
    """Closed form: no mass moves between far clusters of equal weight, so their costs average."""
    # Multiples of 2^-30, so that adding a power of two changes no difference.
    x, y = (np.round(cloud * 2**20) / 2**30 for cloud in two_clouds(m, n, 3))
    far_x, far_y = (np.concatenate([cloud, cloud[::-1] + far]) for cloud in (x, y))
    alone = transport_cost(distances(x, y) ** p)
    assert_round_off(transport_cost(distances(far_x, far_y) ** p) / alone, 1.0)


@pytest.mark.parametrize("cost", [np.zeros((3, 5)), np.zeros((3, 3)), np.zeros((5, 33))])
def test_nothing_to_move(cost):
    """Closed form: 0 costs 0."""
    assert transport_cost(cost) == 0.0


def test_dominant_costs():
    """Closed form: one row against many columns leaves no choice, whatever the spread of costs."""
    cost = np.logspace(-300, 0, 400)[None]
    assert_round_off(transport_cost(cost), cost.mean())
    assert_round_off(transport_cost(cost.T), cost.mean())
