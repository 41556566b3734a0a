import itertools

import numpy as np
import pytest
from distance_family import assert_round_off
from scipy.optimize import linear_sum_assignment

from meanfield.measure import assignment
from meanfield.measure.assignment import assignment_cost


def plain(cost):
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].mean()


def clouds(n, dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)), rng.normal(size=(n, dim)) + 0.5


def costs(x, y, power=2):
    return np.linalg.norm(x[:, None] - y[None], axis=-1) ** power


@pytest.mark.parametrize(
    ("n", "dim", "power"),
    [(128, 1, 2), (200, 2, 1), (200, 2, 8), (300, 3, 2), (150, 64, 2), (150, 64, 0.1)],
)
def test_against_the_plain_assignment(n, dim, power):
    """Independent library: scipy's assignment of the costs as they are."""
    cost = costs(*clouds(n, dim), power)
    assert_round_off(assignment_cost(cost) / plain(cost), 1.0)


@pytest.mark.parametrize("far", [2.0, 2.0**10, 2.0**20])
@pytest.mark.parametrize("power", [1, 2, 4])
def test_clusters_far_apart(far, power):
    """Closed form: no mass moves between far clusters of equal weight, so their costs average."""
    # Multiples of 2^-30, so that adding a power of two changes no difference.
    x, y = (np.round(cloud * 2**20) / 2**30 for cloud in clouds(90, 3))
    far_x, far_y = (np.concatenate([cloud, cloud[::-1] + far]) for cloud in (x, y))
    value = assignment_cost(costs(far_x, far_y, power))
    assert_round_off(value / plain(costs(x, y, power)), 1.0)


def test_potentials_shorten_the_search(monkeypatch):
    """Theorem: reduced by optimal potentials the costs of an optimal assignment are 0."""
    reduced = []

    def spy(cost):
        reduced.append(cost)
        return linear_sum_assignment(cost)

    monkeypatch.setattr(assignment, "linear_sum_assignment", spy)
    cost = costs(*clouds(256, 2))
    value = assignment_cost(cost)
    assert len(reduced) == 1
    assert reduced[0].min() >= 0.0
    # What is left to search, over the value: all of it without potentials.
    assert plain(reduced[0]) < 0.1 * value


def test_brute_force():
    """Numpy loop: the best of all permutations."""
    cost = np.random.default_rng(0).uniform(size=(6, 6))
    best = min(cost[np.arange(6), list(s)].mean() for s in itertools.permutations(range(6)))
    assert_round_off(assignment_cost(cost), best)


@pytest.mark.parametrize("cost", [np.zeros((200, 200)), np.ones((200, 200))])
def test_nothing_to_choose(cost):
    """Closed form: all assignments cost the same."""
    assert assignment_cost(cost) == cost[0, 0]


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_scale_of_the_costs(scale):
    """Invariance: the costs in other units, far beyond single precision."""
    cost = costs(*clouds(150, 2))
    assert_round_off(assignment_cost(scale * cost) / scale, plain(cost))
