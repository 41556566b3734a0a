import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, problems

from meanfield import theory

QKV = ("query", "key", "value")


def run_from(kernel, layer, inputs, targets, *, steps, average=False):
    """Descent of W^Q, W^K and W^V at half of 1/beta, its step, and the ball test of its start."""
    options = {"trained": QKV, "average": average}
    step = float(0.5 / theory.smoothness(kernel, layer, inputs, targets, **options))
    run = theory.layer_descent(kernel, layer, inputs, targets, step=step, steps=steps, **options)
    return run, step, theory.ball_test(kernel, layer, inputs, targets, average=average)


@pytest.mark.parametrize(("name", "average"), [("softmax", True), ("gaussian", False)])
def test_what_passes_stays(name, average):
    """Theorem: path, distance, sigma(B) and risk of the run keep what the test promises."""
    _, inputs, targets = problems(1, outputs=1)
    layer, passed = theory.sufficient_start(
        jax.random.key(0), KERNELS[name], inputs, targets, heads=3, head_dim=2, average=average
    )
    run, step, test = run_from(KERNELS[name], layer, inputs, targets, steps=200, average=average)
    assert test == passed
    found = theory.ball_check(test, run, step=step)
    assert found.stayed
    assert found.contradicted == 0
    assert found.statement.startswith("the ball test passes; the run kept all that it asks for")
    assert (found.rate.refused, found.rate.first) == (0, None)
    assert float(run.path[-1]) < test.length < test.radius
    assert found.used == pytest.approx(float(np.max(run.moved)) / test.radius)
    assert np.min(run.sigma) >= test.sigma / 2
    np.testing.assert_allclose(run.risks[0], test.risk, rtol=1e-9)
    np.testing.assert_allclose(
        found.rate.bound, test.risk * (1 - step * test.pl) ** np.arange(201), rtol=1e-9
    )
    assert np.all(run.pl >= test.pl)


def one_token(error):
    """One token 1, weights exp(-(q - k)^2 / 2) where they are steepest, and a residual."""
    query, key, value, output = (
        jnp.full((1, 1, 1), each) for each in (1.0, 0.0, np.sqrt(0.5), 1.0)
    )
    layer = theory.AttentionLayer(query, key, value, output)
    inputs = jnp.ones((1, 1, 1))
    targets = theory.attention_output(theory.GaussianKernel(), layer, inputs) - error
    return theory.GaussianKernel(), layer, inputs, targets


def test_a_start_that_passes_by_little():
    """Closed form: R = 1/sqrt(8), length 4 |E| / sigma(B_0), and an eighth of it is travelled."""
    sigma = np.exp(-0.5)
    error = sigma / np.sqrt(8) / 4 / 1.02
    given = one_token(error)
    run, step, test = run_from(*given, steps=300)
    assert test.passes
    np.testing.assert_allclose(
        [test.radius, test.length, test.margin], [8**-0.5, 4 * error / sigma, 1.02], rtol=1e-9
    )
    # At the sphere sigma(B) falls to nearly half: a radius a tenth larger would promise too much.
    edge = np.exp(-((1 + np.sqrt(2) * test.radius) ** 2) / 2)
    assert sigma / 2 < edge < 1.1 * sigma / 2
    found = theory.ball_check(test, run, step=step)
    assert found.stayed
    assert found.contradicted == 0
    # mu_eff = mu/4 and the rate 2 mu of small steps leave an eighth, which this run uses up.
    assert 0.11 < found.used < 0.13
    assert float(run.path[-1]) > test.length / 9
    # A radius or a length ten times too small is contradicted by this very run.
    for change in ({"radius": test.radius / 10}, {"length": test.length / 10}):
        assert theory.ball_check(test._replace(**change), run, step=step).contradicted > 0


def test_a_run_that_leaves():
    """Closed form: a residual of 3 carries the query out of the ball, and sigma(B) below half."""
    run, step, test = run_from(*one_token(3.0), steps=300)
    assert not test.passes
    found = theory.ball_check(test, run, step=step)
    assert not found.stayed
    assert found.contradicted == 0
    first = int(np.argmax(np.asarray(run.moved) > test.radius))
    assert found.left == first > 0
    assert f"left the ball at iterate {first}" in found.statement
    assert found.used == pytest.approx(float(run.moved.max()) * np.sqrt(8))
    halved = np.asarray(run.sigma) < np.exp(-0.5) / 2
    assert found.thinned == (int(np.argmax(halved)) if halved.any() else None)


def made_up(**rows):
    """A test that passes with R = 1, and a run of four iterates, of which some rows are given."""
    test = theory.BallTest(True, 2.0, 1.0, 0.5, 1.0, 0.1, 1.0, "")
    given = {
        "risks": 0.8 ** np.arange(4), "slopes": np.zeros(4), "pl": np.ones(4),
        "sigma": np.ones(4), "moved": np.zeros(4), "path": np.zeros(4),
    } | {name: np.asarray(row) for name, row in rows.items()}  # fmt: skip
    return test, theory.Descent(**given, layer=None)


@pytest.mark.parametrize(
    ("rows", "expected", "wrong"),
    [
        ({}, (None, None, None, None), 0),
        ({"moved": [0.0, 0.9, 1.1, 0.9]}, (2, None, None, None), 1),
        ({"path": [0.0, 0.6, 0.7, 0.8]}, (None, 1, None, None), 3),
        ({"sigma": [1.0, 0.6, 0.5, 0.4]}, (None, None, 3, None), 1),
        ({"risks": [1.0, 0.95, 0.8, 0.7]}, (None, None, None, 1), 1),
        # The second step breaks the descent inequality: nothing is promised of what follows it.
        ({"risks": [1.0, 0.5, 0.6, 0.4], "sigma": [1.0, 1, 0.1, 1]}, (None, None, 2, None), 0),
    ],
)
def test_the_first_iterate_that_fails(rows, expected, wrong):
    """Closed form: runs made up so that one condition fails at a known iterate."""
    test, run = made_up(**rows)
    found = theory.ball_check(test, run, step=1.0)
    assert (found.left, found.strayed, found.thinned, found.rate.first) == expected
    assert found.contradicted == wrong
    assert theory.ball_check(test._replace(passes=False), run, step=1.0).contradicted == 0


def test_refusals():
    """Closed form: runs without constants, of several problems, of another start."""
    test, run = made_up()
    with pytest.raises(ValueError, match="^descent must have its constants, got none"):
        theory.ball_check(test, made_up(sigma=[np.nan] * 4)[1], step=1.0)
    with pytest.raises(ValueError, match=r"^descent must be a run of one problem .*\(2, 4\)"):
        theory.ball_check(test, jax.tree.map(lambda row: np.stack([row] * 2), run), step=1.0)
    with pytest.raises(ValueError, match="^test and run must begin at one start, got f_0 = 2 and"):
        theory.ball_check(test._replace(risk=2.0), run, step=1.0)
