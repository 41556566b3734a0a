import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from scipy import stats

from meanfield import tasks

KEY = jax.random.key(0)

regression = tasks.in_context_regression


def half_square(prediction, label):
    return 0.5 * (np.asarray(prediction) - np.asarray(label)) ** 2


def assert_mean(values, expected, *, cap=0.03):
    """Agreement within 4 standard errors, which must be below `cap` of the expected value."""
    error = stats.sem(values)
    assert error < cap * expected
    assert abs(np.mean(values) - expected) < 4 * error


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_tokens_hold_the_answers_of_the_teacher(noise):
    """Closed form: y = <w, x> + noise; the query's slot is empty and its label kept apart."""
    prompts = regression(KEY, 4000, context=5, dim=3, noise=noise)
    assert prompts.tokens.shape == (4000, 6, 4)
    np.testing.assert_array_equal(prompts.tokens[:, -1, -1], 0.0)
    answers = np.array(prompts.tokens[:, :, -1])
    answers[:, -1] = prompts.labels
    clean = np.einsum("bnd,bd->bn", prompts.tokens[:, :, :-1], prompts.weights)
    if noise == 0.0:
        np.testing.assert_allclose(answers, clean, atol=round_off())
    else:
        assert_mean(((answers - clean) ** 2).ravel(), noise**2)
        assert_mean((answers - clean)[:, -1] ** 2, noise**2)


def test_laws():
    """Theorem: normal covariates, teachers of mean square norm 1; Kolmogorov test at 1e-4."""
    prompts = regression(KEY, 2000, context=3, dim=4)
    for values in (prompts.tokens[..., :-1], 2.0 * prompts.weights):
        assert stats.kstest(np.ravel(values), "norm").pvalue > 1e-4
    assert_mean(np.sum(np.asarray(prompts.weights) ** 2, axis=1), 1.0)


def test_draws_depend_on_the_key_alone():
    """Invariance: the same key gives the same prompts, another key others."""
    first, again = (regression(KEY, 3, context=2, dim=2) for _ in range(2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert not np.any(regression(jax.random.key(1), 3, context=2, dim=2).weights == first.weights)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_zero_risk(noise):
    """Closed form: 1/2 E y^2 = (1 + noise^2)/2."""
    labels = regression(KEY, 20000, context=1, dim=6, noise=noise).labels
    assert_mean(half_square(0.0, labels), tasks.in_context_zero_risk(noise=noise))


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("context", [2, 4, 9])
def test_ridge_against_a_loop(context, noise):
    """Numpy loop: normal equations prompt by prompt, pseudo-inverse without noise."""
    prompts = regression(KEY, 20, context=context, dim=4, noise=noise)
    expected = []
    for tokens in np.asarray(prompts.tokens):
        x, y, query = tokens[:-1, :-1], tokens[:-1, -1], tokens[-1, :-1]
        gram = x.T @ x + 4 * noise**2 * np.eye(4)
        weights = np.linalg.solve(gram, x.T @ y) if noise else np.linalg.pinv(x) @ y
        expected.append(weights @ query)
    # The normal equations of the loop lose the digits that its condition number costs.
    found = tasks.in_context_ridge(prompts, noise=noise)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_ridge_recovers_the_teacher():
    """Closed form: without noise, contexts as long as the dimension determine the label."""
    prompts = regression(KEY, 50, context=7, dim=3)
    np.testing.assert_allclose(tasks.in_context_ridge(prompts), prompts.labels, atol=1e-11)


def test_ridge_with_repeated_examples():
    """Invariance: without noise, an example told twice adds nothing, though the rank is short."""
    prompts = regression(KEY, 10, context=3, dim=5)
    doubled = jnp.concatenate([prompts.tokens[:, :-1], prompts.tokens], axis=1)
    found = tasks.in_context_ridge(prompts._replace(tokens=doubled))
    np.testing.assert_allclose(found, tasks.in_context_ridge(prompts), atol=1e-12)
    risk = tasks.in_context_bayes_risk(prompts._replace(tokens=doubled))
    np.testing.assert_allclose(risk, 0.5 * (1 - 3 / 5), rtol=round_off())


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_ridge_ignores_the_order_of_examples(noise):
    """Invariance: a permutation of the context."""
    prompts = regression(KEY, 10, context=6, dim=3, noise=noise)
    order = np.array([4, 2, 0, 5, 1, 3, 6])
    turned = tasks.in_context_ridge(prompts._replace(tokens=prompts.tokens[:, order]), noise=noise)
    np.testing.assert_allclose(turned, tasks.in_context_ridge(prompts, noise=noise), atol=1e-11)


@pytest.mark.parametrize(("context", "dim"), [(2, 8), (8, 8), (12, 8)])
def test_bayes_risk_without_noise(context, dim):
    """Closed form: the share of directions that the context leaves open, max(0, 1 - n/d)/2."""
    prompts = regression(KEY, 20, context=context, dim=dim)
    expected = 0.5 * max(0.0, 1 - context / dim)
    risk = tasks.in_context_bayes_risk(prompts)
    np.testing.assert_allclose(risk, expected, rtol=round_off(), atol=round_off())


def test_bayes_risk_against_a_loop():
    """Numpy loop: noise^2 plus the trace of the posterior covariance, prompt by prompt."""
    noise = 0.7
    prompts = regression(KEY, 20, context=3, dim=5, noise=noise)
    covariances = [
        np.linalg.inv(5 * np.eye(5) + tokens[:-1, :-1].T @ tokens[:-1, :-1] / noise**2)
        for tokens in np.asarray(prompts.tokens)
    ]
    expected = np.mean([0.5 * (noise**2 + np.trace(c)) for c in covariances])
    risk = tasks.in_context_bayes_risk(prompts, noise=noise)
    np.testing.assert_allclose(risk, expected, rtol=round_off(eps=1000))


@pytest.mark.parametrize(("context", "noise"), [(3, 0.0), (3, 0.5), (10, 0.5)])
def test_ridge_attains_the_bayes_risk(context, noise):
    """Theorem: the posterior mean has the least risk; other penalties do worse."""
    prompts = regression(KEY, 20000, context=context, dim=5, noise=noise)
    losses = half_square(tasks.in_context_ridge(prompts, noise=noise), prompts.labels)
    bayes = float(tasks.in_context_bayes_risk(prompts, noise=noise))
    assert_mean(losses, bayes)
    for wrong in (noise / 4, 4 * noise + 0.5):
        others = half_square(tasks.in_context_ridge(prompts, noise=wrong), prompts.labels)
        assert others.mean() >= losses.mean() - 4 * stats.sem(others - losses)
    assert np.mean(others - losses) > 4 * stats.sem(others - losses)


def teacher(theta, sample):
    return jnp.tanh(sample @ theta["in"]) @ theta["out"]


def law(key, samples):
    return jax.random.normal(key, (samples, 4, 3))


def test_teacher_labels():
    """Numpy loop: the network sample by sample, so the teacher's own risk is 0."""
    rng = np.random.default_rng(0)
    theta = {"in": rng.normal(size=(3, 6)), "out": rng.normal(size=(6, 2))}
    pairs = tasks.teacher_student(KEY, 7, apply=teacher, theta=theta, inputs=law)
    assert pairs.inputs.shape == (7, 4, 3)
    for sample, target in zip(pairs.inputs, pairs.targets, strict=True):
        np.testing.assert_allclose(target, teacher(theta, np.asarray(sample)), rtol=round_off())
    risk = np.mean(half_square(jax.vmap(lambda s: teacher(theta, s))(pairs.inputs), pairs.targets))
    assert risk <= round_off()


def test_teacher_inside_jit():
    """Invariance: traced or not, the same data."""

    def targets(key):
        return tasks.teacher_student(key, 5, apply=jnp.multiply, theta=2.0, inputs=law).targets

    np.testing.assert_allclose(jax.jit(targets)(KEY), targets(KEY), rtol=round_off())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples must be an integer >= 1, got 0"),
        ({"context": 0}, "context must be an integer >= 1, got 0"),
        ({"dim": -2}, "dim must be an integer >= 1, got -2"),
        ({"noise": -0.1}, "noise must be >= 0, got -0.1"),
        ({"noise": np.nan}, "noise must be a finite number >= 0, got nan"),
    ],
)
def test_refused_prompts(change, message):
    """Closed form: one sentence that names the argument."""
    options = {"samples": 2, "context": 2, "dim": 2} | change
    with pytest.raises(ValueError, match=message):
        regression(KEY, options.pop("samples"), **options)


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4), (2, 4, 1)])
def test_refused_tokens(shape):
    """Closed form: tokens that hold no example or no covariate."""
    prompts = tasks.Prompts(jnp.ones(shape), jnp.ones(2), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="at least one example before the query"):
        inspect.unwrap(tasks.in_context_ridge)(prompts)


def test_refused_noise():
    """Closed form: every function of the noise checks it."""
    prompts = regression(KEY, 2, context=2, dim=2)
    for function in (tasks.in_context_ridge, tasks.in_context_bayes_risk):
        with pytest.raises(ValueError, match="noise must be >= 0"):
            function(prompts, noise=-1.0)
    with pytest.raises(ValueError, match="noise must be >= 0"):
        tasks.in_context_zero_risk(noise=-1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": lambda key, samples: jnp.ones((3, 2))}, "must return 5 samples"),
        ({"apply": lambda theta, x: x * jnp.nan}, "targets must be finite"),
    ],
)
def test_refused_teachers(change, message):
    """Closed form: a law of another length, a teacher that overflows."""
    options = {"apply": jnp.multiply, "theta": 1.0, "inputs": law} | change
    with pytest.raises(ValueError, match=message):
        tasks.teacher_student(KEY, 5, **options)
