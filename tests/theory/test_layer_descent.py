import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, problems, weights_by_loop

from meanfield import nn, theory

PROBLEMS = 1000
GIVEN = problems(7, PROBLEMS)


def runs(name, steps, *, trained, share):
    """Descent of all problems at a share of 1/beta, and the steps."""
    kernel = KERNELS[name]

    def one(layer, inputs, targets):
        beta = theory.smoothness(kernel, layer, inputs, targets, trained=trained)
        options = {"step": share / beta, "steps": steps, "trained": trained}
        return theory.layer_descent(kernel, layer, inputs, targets, **options), share / beta

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(*GIVEN))


@pytest.mark.parametrize("name", KERNELS)
def test_values_alone_keep_the_bound(name):
    """Theorem: f_t <= (1 - eta mu)^t f_0 at eta = 1/beta, in 1,000 problems, none excepted."""
    found, steps = runs(name, 60, trained=["value"], share=1.0)
    for i in range(PROBLEMS):
        run, step = jax.tree.map(lambda leaf, i=i: leaf[i], found), float(steps[i])
        check = theory.rate_check(run, step=step)
        assert (check.violations, check.refused) == (0, 0)
        expected = run.risks[0] * (1 - step * run.pl[0]) ** np.arange(61)
        np.testing.assert_allclose(check.bound, expected, rtol=1e-9)
        assert check.observed is None or check.observed.rate >= check.predicted
    assert np.all(found.pl[:, 0] > 0)
    # Where slow directions are left at the end, ten times the rate would be too much for some.
    late = found.risks[:, -1] / found.risks[:, -2]
    assert np.any(late > 1 - 10 * steps * found.pl[:, 0])


@pytest.mark.parametrize("name", KERNELS)
def test_values_with_queries_and_keys(name):
    """Theorem: f_t <= prod (1 - eta mu_t) f_0 while steps keep the descent inequality; 1,000."""
    found, steps = runs(name, 20, trained=["query", "key", "value"], share=0.5)
    checks = [
        theory.rate_check(jax.tree.map(lambda leaf, i=i: leaf[i], found), step=float(steps[i]))
        for i in range(PROBLEMS)
    ]
    assert sum(check.violations for check in checks) == 0
    # The Hessian at the start is no bound along the path, and yet seldom misleads.
    assert sum(check.refused == 0 for check in checks) > 0.8 * PROBLEMS
    kept = np.array([check.refused == 0 for check in checks])
    near = kept & np.all(found.sigma >= found.sigma[:, :1] / 2, axis=1)
    rows = np.sum(near)
    assert rows > 0.5 * PROBLEMS
    outer = jnp.linalg.svd(GIVEN[0].output, compute_uv=False)[..., -1].min(axis=1)
    quarter = np.asarray(found.sigma[:, 0] ** 2 * outer**2 / 4)
    bound = found.risks[:, :1] * (1 - (steps * quarter)[:, None]) ** np.arange(21)[None]
    assert np.sum(found.risks[near] > bound[near] * (1 + 1e-12)) == 0
    assert np.all(found.moved <= found.path * (1 + 1e-12) + 1e-15)


@pytest.mark.parametrize("name", KERNELS)
def test_descent_against_a_loop(name):
    """Numpy loop: W^V by the closed form of its gradient, 1/N before the risk."""
    layer, inputs, targets = problems(8)
    x, y, value = np.asarray(inputs), np.asarray(targets), np.asarray(layer.value)
    output = np.asarray(layer.output)
    mixed = np.zeros((2, 2, 2, 5))
    for i in range(2):
        for h in range(2):
            query, key = x[i] @ np.asarray(layer.query[h]), x[i] @ np.asarray(layer.key[h])
            mixed[i, h] = weights_by_loop(name, query, key) @ x[i]
    risks = []
    for _ in range(4):
        error = sum(mixed[:, h] @ value[h] @ output[h] for h in range(2)) - y
        risks.append(np.sum(error**2) / 4)
        slopes = [
            sum(mixed[i, h].T @ error[i] for i in range(2)) @ output[h].T / 2 for h in range(2)
        ]
        value = value - 0.05 * np.array(slopes)
    options = {"step": 0.05, "steps": 3, "average": True}
    found = theory.layer_descent(KERNELS[name], layer, inputs, targets, **options)
    np.testing.assert_allclose(found.risks, risks, rtol=1e-12)
    assert float(jnp.max(found.moved)) == float(jnp.max(found.path)) == 0.0
    np.testing.assert_array_equal(found.layer.output, layer.output)
    bare = theory.layer_descent(
        KERNELS[name], layer, inputs, targets, **options, constants=False, trained=["key"]
    )
    assert np.isnan(bare.pl).all()
    assert float(bare.path[-1]) >= float(bare.moved[-1]) > 0


FIXTURE = theory.AttentionLayer(
    jnp.zeros((1, 2, 1)), jnp.array([[[-1.0], [1.0]]]), jnp.array([[[1.0], [2.0]]]),
    jnp.ones((1, 1, 1)),
)  # fmt: skip


def ends(kernel, starts, steps):
    """Risk of each row after descent on its query: two rows per layer, which do not meet."""
    inputs, targets = jnp.eye(2)[None], jnp.full((1, 2, 1), 0.5)

    def one(pair):
        layer = FIXTURE._replace(query=pair[None, :, None])
        options = {"step": 1.0, "steps": steps, "trained": ["query"], "constants": False}
        run = theory.layer_descent(kernel, layer, inputs, targets, **options)
        return (theory.attention_output(kernel, run.layer, inputs) - targets)[0, :, 0] ** 2 / 2

    return np.ravel(jax.jit(jax.vmap(one))(jnp.asarray(starts).reshape(-1, 2)))


def test_the_published_fixture():
    """Closed form: keys (-1, 1), values (1, 2), target 1/2, descent on the query."""
    starts = [-2.0, 1.5, 2.5, 0.0]
    softmax = ends(nn.softmax(scale=1.0), starts, 20_000)
    np.testing.assert_allclose(softmax, 0.125, atol=1e-4)
    assert np.all(softmax > 0.125)
    gaussian = ends(nn.gaussian(1.0, scale=1.0), starts, 20_000)
    np.testing.assert_allclose(gaussian[:3], 0.0, atol=1e-20)
    np.testing.assert_allclose(gaussian[3], 0.1145, atol=5e-5)


def test_refusals():
    """Closed form: steps that are none."""
    layer, inputs, targets = problems(9)
    given = KERNELS["softmax"], layer, inputs, targets
    for step in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="^step must be a finite number > 0, got"):
            theory.layer_descent(*given, step=step, steps=1)
    with pytest.raises(ValueError, match="^steps must be an integer >= 1, got 0"):
        theory.layer_descent(*given, step=0.1, steps=0)
    with pytest.raises(ValueError, match="^trained must be one of query, key, value, output"):
        theory.layer_descent(*given, step=0.1, steps=1, trained=["values"])
