import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, SHAPES, panel, problems, weights_by_loop
from helpers import round_off

from meanfield import nn, theory

PROBLEMS = 1000


def runs(name, panels, steps, *, trained, share):
    """Descent of every problem at a share of 1/beta, and its steps, panel by panel."""
    for given, average in panels:
        options = {"trained": trained, "average": average}

        def one(layer, inputs, targets, options=options):
            beta = theory.smoothness(KERNELS[name], layer, inputs, targets, **options)
            with_steps = {"step": share / beta, "steps": steps, **options}
            run = theory.layer_descent(KERNELS[name], layer, inputs, targets, **with_steps)
            return run, share / beta

        yield jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(*given))


def exceeding(risks, bounds):
    """Risks above their bounds by more than the round-off of a residual, 200 eps of the first."""
    least = round_off() ** 2 * risks[:, :1]
    return risks > bounds + 2 * np.sqrt(bounds * least) + least


@pytest.mark.parametrize("name", KERNELS)
def test_values_alone_keep_the_bound(name):
    """Theorem: f_t <= (1 - eta mu)^t f_0 at eta = 1/beta, in 1,000 problems, none excepted."""
    count = positive = slow = 0
    for found, steps in runs(name, panel(7, PROBLEMS), 60, trained=["value"], share=1.0):
        gain = steps * found.pl[:, 0]
        bounds = found.risks[:, :1] * (1 - gain[:, None]) ** np.arange(61)[None]
        assert not np.any(exceeding(found.risks, bounds))
        descent = found.risks[:, :-1] - steps[:, None] / 2 * found.slopes[:, :-1]
        assert not np.any(exceeding(found.risks[:, 1:], np.maximum(descent, 0)))
        # Where slow directions are left at the end, ten times the rate would be too much.
        slow += np.sum(found.risks[:, -1] / found.risks[:, -2] > 1 - 10 * gain)
        positive += np.sum(gain > 0)
        count += len(gain)
        for i in range(20):
            run = jax.tree.map(lambda leaf, i=i: leaf[i], found)
            check = theory.rate_check(run, step=float(steps[i]))
            assert (check.violations, check.refused, check.first) == (0, 0, None)
            np.testing.assert_allclose(check.bound, bounds[i], rtol=1e-9)
            assert check.observed is None or check.observed.rate >= check.predicted
    assert count == PROBLEMS
    assert positive > 0.9 * PROBLEMS
    assert slow > 0


@pytest.mark.parametrize("name", KERNELS)
def test_values_with_queries_and_keys(name):
    """Theorem: f_t <= prod (1 - eta mu_t) f_0 while steps keep the descent inequality; 1,000."""
    kept = near = 0
    panels = list(panel(7, PROBLEMS, shapes=SHAPES[1:]))
    sets = runs(name, panels, 15, trained=["query", "key", "value"], share=0.5)
    for (found, steps), (given, average) in zip(sets, panels, strict=True):
        at = steps[:, None]
        descent = found.risks[:, :-1] - at / 2 * found.slopes[:, :-1]
        held = np.cumsum(exceeding(found.risks[:, 1:], np.maximum(descent, 0)), axis=1) == 0
        factors = np.cumprod(np.maximum(1 - at * found.pl[:, :-1], 0), axis=1)
        above = exceeding(found.risks[:, 1:], found.risks[:, :1] * factors)
        assert np.sum(above & held) == 0
        assert np.all(found.moved <= found.path * (1 + 1e-12) + 1e-15)
        outer = np.linalg.svd(given[0].output, compute_uv=False)[..., -1].min(axis=1)
        share = 1 / given[1].shape[1] if average else 1.0
        quarter = at * share * found.sigma[:, :1] ** 2 * outer[:, None] ** 2 / 4
        bounds = found.risks[:, :1] * (1 - quarter) ** np.arange(16)[None]
        stays = held[:, -1] & np.all(found.sigma >= found.sigma[:, :1] / 2, axis=1)
        assert not np.any(exceeding(found.risks, bounds)[stays])
        kept, near = kept + np.sum(held[:, -1]), near + np.sum(stays)
    # The Hessian at the start is no bound along the path, and yet seldom misleads.
    assert kept > 0.8 * PROBLEMS
    assert near > 0.5 * PROBLEMS


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


def test_data_in_single_precision():
    """Closed form: one precision for all, the higher; the run is that of the data converted."""
    layer, inputs, targets = problems(9)
    low = [jnp.asarray(each, jnp.float32) for each in (inputs, targets)]
    options = {"step": 0.01, "steps": 2, "constants": False}
    mixed = theory.layer_descent(KERNELS["softmax"], layer, *low, **options)
    high = [jnp.asarray(each, float) for each in low]
    alone = theory.layer_descent(KERNELS["softmax"], layer, *high, **options)
    np.testing.assert_array_equal(mixed.risks, alone.risks)


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
