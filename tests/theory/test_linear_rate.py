import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, panel, problems
from helpers import round_off

from meanfield import theory

PROBLEMS = 1000
NAMES = ("query", "key", "value", "output")


@functools.cache
def measured(name):
    """Of every problem its constants, and by its derivatives gradients and sharp constants."""
    kernel = KERNELS[name]

    def one(layer, inputs, targets, *, average):
        found = theory.rate_constants(kernel, layer, inputs, targets, average=average)
        alone = [
            theory.pl_constant(kernel, layer, inputs, trained=[name], average=average)
            for name in NAMES
        ]
        outputs = theory.attention_output(kernel, layer, inputs)
        derivatives = jax.jacrev(theory.attention_output, argnums=1)(kernel, layer, inputs)
        return found, jnp.stack(alone), outputs, derivatives

    rows = []
    for given, average in panel(3, PROBLEMS):
        program = jax.jit(jax.vmap(functools.partial(one, average=average)))
        rows.append(by_derivatives(given, average, jax.tree.map(np.asarray, program(*given))))
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}


def by_derivatives(given, average, found):
    """Gradients s J'E and eigenvalues of s J J' in each parameter, and what they bound."""
    layer, inputs, targets = (jax.tree.map(np.asarray, each) for each in given)
    constants, alone, outputs, derivatives = found
    count, share = len(inputs), 1 / inputs.shape[1] if average else 1.0
    errors = (outputs - targets).reshape(count, -1, 1)
    rows = [each.reshape(*errors.shape[:2], -1) for each in derivatives]
    spectra = [share * np.linalg.eigvalsh(each @ each.swapaxes(1, 2)) for each in rows]
    norms = np.linalg.svd(layer.output, compute_uv=False)[..., 0]
    return {
        "risk": share / 2 * np.sum(errors**2, axis=(1, 2)),
        "slopes": np.stack([np.sum((share * errors * r).sum(1) ** 2, axis=1) for r in rows], 1),
        "missing": inputs.shape[1] * inputs.shape[2] - constants.rank,
        "constants": np.stack([constants.pl, constants.smoothness, constants.step], 1),
        "pl": alone,
        "least": np.stack([each[:, 0] for each in spectra], 1),
        "largest": np.stack([each[:, -1] for each in spectra], 1),
        "paper": share * constants.singular_values[:, 0] ** 2 * np.sum(norms**2, axis=1),
        "doctored": share * constants.sigma**2 * np.max(norms, axis=1) ** 2,
    }


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_dominate_the_risk(name):
    """Theorem: |grad f|^2 >= 2 mu f in each parameter, in 1,000 problems, none excepted."""
    found = measured(name)
    assert found["slopes"].shape == (PROBLEMS, 4)
    twice = 2 * found["pl"] * found["risk"][:, None]
    slack = round_off() * 2 * found["largest"] * found["risk"][:, None]
    assert np.sum(found["slopes"] < twice - slack) == 0
    # Sizes allow every constant to be positive; far queries may still round weights to nothing.
    np.testing.assert_array_equal(found["pl"][:, 2] > 0, found["missing"] == 0)
    assert np.all(np.mean(found["pl"] > 0, axis=0) > [0.5, 0.5, 0.9, 0.5])
    # And some of the 1,000 come near equality: with the largest norm of W^O the bound breaks.
    assert np.sum(found["slopes"][:, 2] < 2 * found["doctored"] * found["risk"]) > 0


@pytest.mark.parametrize("name", KERNELS)
def test_constants_against_the_tangent_kernel(name):
    """Theorem: mu <= least eigenvalue, largest <= beta <= the beta of the paper; no exception."""
    found = measured(name)
    slack = round_off() * found["largest"]
    assert np.sum(found["pl"] > found["least"] + slack) == 0
    pl, beta, step = found["constants"].T
    assert np.sum(found["largest"][:, 2] > beta * (1 + round_off())) == 0
    assert np.sum(beta > found["paper"] * (1 + round_off())) == 0
    np.testing.assert_array_equal(pl, found["pl"][:, 2])
    np.testing.assert_allclose(step * beta, 1.0, rtol=round_off())
    (layer, inputs, _), _ = next(panel(3, PROBLEMS))
    layer, inputs = jax.tree.map(lambda leaf: leaf[0], (layer, inputs))
    sharp = theory.tangent_extremes(KERNELS[name], layer, inputs, trained=["value"])
    expected = found["least"][0, 2], found["largest"][0, 2]
    np.testing.assert_allclose(sharp, expected, atol=round_off() * expected[1])


@pytest.mark.parametrize("name", KERNELS)
def test_sets_of_parameters_add_up(name):
    """Closed form: mu of several parameters is the sum, 1/N divides f, mu and beta alike."""
    given, _ = next(panel(3, PROBLEMS))
    layer, inputs, targets = jax.tree.map(lambda leaf: leaf[0], given)
    kernel = KERNELS[name]
    whole = theory.pl_constant(kernel, layer, inputs, trained=["value", "query", "key", "output"])
    np.testing.assert_allclose(whole, measured(name)["pl"][0].sum(), rtol=1e-9)
    plain, mean = (
        theory.rate_constants(kernel, layer, inputs, targets, average=average)
        for average in (False, True)
    )
    for field in ("risk", "pl", "smoothness"):
        np.testing.assert_allclose(2 * getattr(mean, field), getattr(plain, field), rtol=1e-12)
    np.testing.assert_array_equal(mean.singular_values, plain.singular_values)


@pytest.mark.parametrize("name", KERNELS)
def test_derivatives_in_queries_and_keys(name):
    """Independent path: P_ia and L_i by the formulas of the two kernels, softmax and Gaussian."""
    layer, inputs, _ = problems(4, samples=1, tokens=3, dim=4, heads=1, outputs=1)
    x = np.asarray(inputs[0])
    queries, keys = x @ np.asarray(layer.query[0]), x @ np.asarray(layer.key[0])
    values = x @ np.asarray(layer.value[0] @ layer.output[0])
    weights = np.asarray(theory.attention_weights(KERNELS[name], layer, inputs))[0, 0]
    size = np.sqrt(2)
    in_query, in_keys = np.zeros((3, 1, 2)), np.zeros((3, 3, 2))
    for a in range(3):
        mean = weights[a] @ values
        for b in range(3):
            if name == "softmax":
                in_query[a] += weights[a, b] * np.outer(values[b] - mean, keys[b]) / size
                in_keys[a, b] = weights[a, b] * (values[b] - mean) * queries[a] / size
            else:
                pull = weights[a, b] * np.outer(values[b], queries[a] - keys[b]) / size
                in_query[a] -= pull
                in_keys[a, b] = pull[0]
    tokens = np.linalg.svd(x, compute_uv=False)[-1]
    least = min(np.linalg.svd(p, compute_uv=False)[-1] for p in in_query)
    together = np.linalg.svd(in_keys.reshape(3, -1), compute_uv=False)[-1]
    for parameter, expected in (("query", least), ("key", together)):
        found = theory.pl_constant(KERNELS[name], layer, inputs, trained=[parameter])
        np.testing.assert_allclose(found, (tokens * expected) ** 2, rtol=1e-9)


def test_smoothness_of_all_else():
    """Finite difference: the largest eigenvalue of the Hessian, built from gradients."""
    layer, inputs, targets = problems(5, samples=1, dim=2, heads=1, head_dim=1, outputs=1)
    kernel = KERNELS["gaussian"]
    risk = theory.attention_risk(kernel, inputs, targets)

    @jax.jit
    def slope(vector):
        moved = layer._replace(query=vector[:2].reshape(1, 2, 1), key=vector[2:].reshape(1, 2, 1))
        found = jax.grad(risk)(moved)
        return jnp.concatenate([jnp.ravel(found.query), jnp.ravel(found.key)])

    vector = jnp.concatenate([layer.query.ravel(), layer.key.ravel()])
    steps = 1e-5 * np.eye(4)
    rows = [(slope(vector + step) - slope(vector - step)) / 2e-5 for step in steps]
    found = theory.smoothness(kernel, layer, inputs, targets, trained=["key", "query"])
    expected = np.abs(np.linalg.eigvalsh((np.array(rows) + np.array(rows).T) / 2)).max()
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"heads": 1, "dim": 3}, (False, False, False)),
        ({"heads": 1, "dim": 4}, (True, False, True)),
        ({"heads": 2, "dim": 2}, (True, True, False)),
        ({"heads": 2, "dim": 2, "outputs": 3}, (False, True, False)),
    ],
)
def test_sizes_decide_the_rank(sizes, expected):
    """Theorem: B has full row rank from HD = Nn on, and the constants are 0 below."""
    layer, inputs, targets = problems(6, **sizes)
    assert theory.size_tests(layer, inputs)[:3] == expected
    # Features of one rank fewer than rows are certain below the threshold only.
    found = theory.rate_constants(KERNELS["gaussian"], layer, inputs, targets)
    assert int(found.rank) == min(4, layer.value.shape[0] * layer.value.shape[1])
    assert (float(found.pl) > 0) == expected[0]
    assert (float(found.sigma) > 0) == (int(found.rank) == 4)
