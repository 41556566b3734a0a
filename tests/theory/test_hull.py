import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, problems
from scipy import optimize

from meanfield import theory

ROWS = {"softmax": "simplex", "gaussian": "box"}


def inside(generators, target, rows):
    """Whether some row of weights gives the target, by linear programming."""
    equations, goal = generators.T, target
    if rows == "simplex":
        equations, goal = np.vstack([equations, np.ones(len(generators))]), np.append(goal, 1.0)
    bounds = (0, None if rows == "simplex" else 1)
    found = optimize.linprog(np.zeros(len(generators)), A_eq=equations, b_eq=goal, bounds=bounds)
    return found.status == 0


@pytest.mark.parametrize("rows", ROWS.values())
def test_membership_against_linear_programming(rows):
    """Independent library: 200 random polytopes in the plane and in space."""
    rng = np.random.default_rng(0)
    distance = theory.hull_distance if rows == "simplex" else theory.zonotope_distance
    verdicts = []
    for dim in (2, 3):
        for _ in range(100):
            points, target = rng.normal(size=(6, dim)) + 0.3, 0.6 * rng.normal(size=dim)
            lower, found = distance(points, target)
            assert 0 <= lower <= found < lower + 1e-7
            verdicts.append(inside(points, target, rows))
            assert verdicts[-1] == (lower < 1e-9)
    assert 0.2 < np.mean(verdicts) < 0.8


def test_distances_known():
    """Closed form: vertex, edge and inside of a triangle; corner of a parallelogram."""
    triangle = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    for target, expected in (([-3, -4], 5), ([2, 2], np.sqrt(2)), ([1, -3], 3), ([0.5, 0.5], 0)):
        lower, found = theory.hull_distance(triangle, np.array(target, float))
        np.testing.assert_allclose([lower, found], expected, atol=1e-12)
    sides = np.array([[1.0, 0.0], [0.0, 2.0]])
    for target, expected in (([4, 6], 5), ([0.5, 3], 1), ([0.5, 1], 0), ([-1, 1], 1)):
        lower, found = theory.zonotope_distance(sides, np.array(target, float))
        np.testing.assert_allclose([lower, found], expected, atol=1e-12)
    # Far away and tiny: distances are relative to the points, not to one.
    assert theory.hull_distance(1e-8 * triangle, np.array([-3e-8, -4e-8]))[0] == pytest.approx(5e-8)
    assert theory.hull_distance(np.ones((1, 2)), np.ones(2)) == (0.0, 0.0)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("heads", [1, 2])
def test_no_query_and_key_beats_the_bound(name, heads):
    """Theorem: 2,000 random W^Q and W^K, small to huge, stay above the least risk."""
    layer, inputs, targets = problems(1, samples=2, tokens=3, dim=4, heads=heads)
    targets = 3 * targets
    bound = theory.reach_test(layer, inputs, targets, rows=ROWS[name])
    assert bound.slack < 1e-7
    assert not bound.reachable
    rng = np.random.default_rng(2)
    scales = 10.0 ** rng.uniform(-2, 2, size=(2000, 1, 1, 1, 1))
    moves = scales * rng.normal(size=(2000, 2, *layer.query.shape))
    risk = theory.attention_risk(KERNELS[name], inputs, targets)
    found = jax.jit(jax.vmap(lambda m: risk(layer._replace(query=m[0], key=m[1]))))(
        jnp.asarray(moves)
    )
    assert np.all(found >= bound.least_risk)
    mean = theory.reach_test(layer, inputs, targets, rows=ROWS[name], average=True)
    np.testing.assert_allclose(2 * mean.least_risk, bound.least_risk, rtol=1e-12)


def test_the_bound_is_attained_in_the_limit():
    """Closed form: the fixture of papers, target 1/2 below values 1 and 2: f >= 1/8."""
    layer = theory.AttentionLayer(
        jnp.zeros((1, 2, 1)), jnp.array([[[-1.0], [1.0]]]), jnp.array([[[1.0], [2.0]]]),
        jnp.ones((1, 1, 1)),
    )  # fmt: skip
    inputs, targets = jnp.eye(2)[None], jnp.array([[[0.5], [1.5]]])
    found = theory.reach_test(layer, inputs, targets)
    np.testing.assert_array_equal(found.outside, [[True, False]])
    assert found.least_risk == 0.125
    risk = theory.attention_risk(KERNELS["softmax"], inputs, targets)
    far = risk(layer._replace(query=jnp.array([[[-50.0], [0.0]]])))
    np.testing.assert_allclose(far, 0.125, rtol=1e-12)
    assert theory.reach_test(layer, inputs, targets, rows="box").reachable


def test_several_heads_sum_their_hulls():
    """Independent library: a row is a sum of one mixture per head, by linear programming."""
    layer, inputs, targets = problems(3, samples=3, tokens=3, dim=4, heads=3)
    found = theory.reach_test(layer, inputs, 1.5 * targets)
    values = np.einsum("bnd,mdk,mkc->bmnc", inputs, layer.value, layer.output)
    for i, a in itertools.product(range(3), range(3)):
        blocks = values[i].reshape(9, -1)
        equations = np.vstack([blocks.T, np.kron(np.eye(3), np.ones((1, 3)))])
        goal = np.append(1.5 * targets[i, a], np.ones(3))
        program = optimize.linprog(np.zeros(9), A_eq=equations, b_eq=goal, bounds=(0, None))
        assert found.outside[i, a] == (program.status != 0)
    assert 0 < found.outside.sum() < 9


def test_refusals():
    """Closed form: points that are none, rows of another kind, hulls of too many vertices."""
    layer, inputs, targets = problems(4)
    with pytest.raises(ValueError, match=r"^points must be \[p c\] with p >= 1"):
        theory.hull_distance(np.ones((0, 2)), np.ones(2))
    with pytest.raises(ValueError, match="^rows must be one of simplex, box, got 'boxes'; did you"):
        theory.reach_test(layer, inputs, targets, rows="boxes")
    layer, inputs, targets = problems(4, heads=13)
    with pytest.raises(ValueError, match="at most 4096 vertices n.H, got 2.13"):
        theory.reach_test(layer, inputs, targets)


def test_outputs_of_the_layer_itself_are_in_reach_in_single_precision():
    """Theorem: what a layer computes lies in its hull, round-off of float32 or not."""
    for seed in range(5):
        keys = jax.random.split(jax.random.key(seed), 5)
        shapes = [(2, 4, 2), (2, 4, 2), (2, 4, 3), (2, 3, 3)]
        parts = [jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, shapes, strict=False)]
        layer = theory.AttentionLayer(*parts)
        inputs = jax.random.normal(keys[4], (3, 2, 4), jnp.float32)
        outputs = theory.attention_output(KERNELS["softmax"], layer, inputs)
        found = theory.reach_test(layer, inputs, outputs)
        assert not found.outside.any()
        assert found.least_risk == 0
        assert theory.reach_test(layer, inputs, outputs + 100).outside.all()
