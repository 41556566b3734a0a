import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import cross_entropy_loop

from meanfield import flow, nn

SAMPLES, DIM, CLASSES = 7, 3, 4
RNG = np.random.default_rng(0)
INPUTS = jnp.asarray(RNG.normal(size=(SAMPLES, DIM)))
TARGETS = jnp.asarray(RNG.normal(size=(SAMPLES, CLASSES)))
LABELS = jnp.asarray(RNG.integers(CLASSES, size=SAMPLES))
THETA = {"w": jnp.asarray(RNG.normal(size=(DIM, CLASSES))), "b": jnp.asarray(RNG.normal(size=4))}
DIRECTION = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape)), THETA)
DATA = {"square": TARGETS, "cross_entropy": LABELS}


def apply(theta, x):
    return jnp.tanh(x @ theta["w"]) * theta["b"] + theta["b"]


def risk_of(loss, chunk, inputs=INPUTS):
    return flow.empirical_risk(apply, inputs, DATA[loss], loss=loss, chunk=chunk)


def close(got, expected, eps=200):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=round_off(eps=eps), atol=round_off()),
        got,
        expected,
    )


@pytest.mark.parametrize("loss", DATA)
def test_against_loop(loss):
    """Numpy loop: the mean over samples of half the squared distance, or of -log likelihood."""
    w, b = (np.asarray(THETA[name]) for name in ("w", "b"))
    losses = []
    for x, y in zip(np.asarray(INPUTS), np.asarray(DATA[loss]), strict=True):
        output = np.tanh(x @ w) * b + b
        losses.append(
            np.sum((output - y) ** 2) / 2 if loss == "square" else cross_entropy_loop(output, y)
        )
    close(risk_of(loss, None)(THETA), np.mean(losses))


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("loss", DATA)
def test_chunks_change_nothing(loss, chunk):
    """Invariance: value, gradient, forward derivative, Hessian product; chunks may not fit."""

    @jax.jit
    def everything(risk):
        value, gradient = jax.value_and_grad(risk)(THETA)
        hessian = jax.jvp(jax.grad(risk), (THETA,), (DIRECTION,))[1]
        return value, gradient, jax.jvp(risk, (THETA,), (DIRECTION,)), hessian

    close(everything(risk_of(loss, chunk)), everything(risk_of(loss, None)), eps=500)


def test_reverse_over_reverse_in_chunks():
    """Invariance: the gradient of <gradient, direction> is the Hessian product."""

    @jax.jit
    def product(risk):
        def along(theta):
            return sum(
                map(jnp.vdot, jax.tree.leaves(jax.grad(risk)(theta)), jax.tree.leaves(DIRECTION))
            )

        return jax.grad(along)(THETA)

    forward = jax.jvp(jax.grad(risk_of("square", None)), (THETA,), (DIRECTION,))[1]
    close(product(risk_of("square", 3)), forward, eps=500)


@pytest.mark.parametrize("chunk", [None, 3])
def test_batch_of_parameters(chunk):
    """Invariance: a vmapped risk is the risk of each set of parameters."""
    thetas = jax.tree.map(lambda x, y: jnp.stack([x, x + y, x - y]), THETA, DIRECTION)
    risk = risk_of("cross_entropy", chunk)
    both = jax.value_and_grad(risk)
    found = jax.jit(jax.vmap(both))(thetas)
    close(found, jax.jit(lambda thetas: jax.lax.map(both, thetas))(thetas))
    assert found[0].shape == (3,)


def test_memory_is_set_by_the_chunk():
    """Equality: the compiled gradient needs the same scratch memory for twice the samples."""

    def two_layers(theta, x):
        return jnp.tanh(jnp.tanh(x @ theta) @ theta.T)

    def scratch(samples, chunk):
        data = jnp.zeros((samples, 16))
        risk = flow.empirical_risk(two_layers, data, data, chunk=chunk)
        gradient = jax.jit(jax.grad(lambda theta, risk: risk(theta)))
        compiled = gradient.lower(jnp.ones((16, 64)), risk).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert scratch(256, 8) == scratch(128, 8) < scratch(128, None) < scratch(256, None)


def test_wide_networks_add_up_no_gradients():
    """Equality: where heads outgrow fast memory, scratch is that of all samples at once."""
    block, tokens = nn.attention(dim=64, head_dim=16), jnp.zeros((8, 64, 64))
    network = nn.network((block,), depth=1)
    heads = jax.eval_shape(lambda: network.init(jax.random.key(0), width=128))

    def scratch(chunk):
        risk = flow.empirical_risk(network.apply, tokens, tokens, chunk=chunk)
        gradient = jax.jit(jax.grad(lambda theta, risk: risk(theta)))
        return gradient.lower(heads, risk).compile().memory_analysis().temp_size_in_bytes

    assert scratch(None) == scratch(len(tokens)) < scratch(2)


@pytest.mark.parametrize("chunk", [None, 3])
def test_single_precision(chunk):
    """Invariance: float32 parameters and data give float32 value and gradient, decay included."""
    theta, inputs, targets = jax.tree.map(
        lambda leaf: leaf.astype(np.float32), (THETA, INPUTS, TARGETS)
    )
    risk = flow.empirical_risk(apply, inputs, targets, chunk=chunk)
    value, gradient = jax.value_and_grad(risk)(theta)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {np.dtype(np.float32)}
    exact = risk_of("square", None)(THETA)
    np.testing.assert_allclose(value, exact, rtol=round_off(np.float32))
    energy = flow.energy(risk, lambda theta: 1.0, weight_decay=0.1)
    assert energy(theta).dtype == np.float32


def test_sixteen_bits_are_summed_in_more():
    """Independent formula: a gradient of 512 samples, one by one, to the digits of its type."""
    inputs = jnp.asarray(RNG.uniform(1.0, 2.0, size=512), jnp.bfloat16)
    risk = flow.empirical_risk(lambda theta, x: theta * x, inputs, jnp.zeros_like(inputs), chunk=1)
    found = jax.grad(risk)(jnp.ones((), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = np.mean(np.asarray(inputs, float) ** 2)
    np.testing.assert_allclose(float(found), expected, rtol=2 * float(jnp.finfo("bfloat16").eps))


@pytest.mark.parametrize("chunk", [None, 3])
def test_new_data_compile_nothing(chunk):
    """Equality: new data, another lambda and another theta of one shape trace the model 0 times."""
    traces = []

    def counted(theta, x):
        traces.append(None)
        return apply(theta, x)

    gradient = jax.jit(jax.grad(lambda energy, theta: energy(theta), argnums=1))

    def energy(inputs, weight_decay):
        risk = flow.empirical_risk(counted, inputs, TARGETS, chunk=chunk)
        return flow.energy(risk, decay, weight_decay=weight_decay)

    gradient(energy(INPUTS, 0.1), THETA)
    first = len(traces)
    assert first > 0
    fresh = gradient(energy(2 * INPUTS, 0.3), DIRECTION)
    assert len(traces) == first
    close(fresh, jax.grad(energy(2 * INPUTS, 0.3))(DIRECTION))


def decay(theta):
    del theta
    return {"w": 0.5, "b": 0.0}


@pytest.mark.parametrize("weight_decay", [0.0, 0.7, jnp.array(0.7)])
def test_energy(weight_decay):
    """Closed form: R + lambda/2 sum_b decay_b |theta_b|^2; a branch of weight 0 is left alone."""
    risk = risk_of("square", None)
    energy = flow.energy(risk, decay, weight_decay=weight_decay)
    expected = risk(THETA) + weight_decay / 2 * 0.5 * jnp.sum(THETA["w"] ** 2)
    close(energy(THETA), expected)


def test_energy_of_a_traced_decay():
    """Finite difference: dQ/dlambda is half the weighted squared norm."""
    risk = risk_of("square", None)
    slope = jax.grad(
        lambda decay_constant: flow.energy(risk, decay, weight_decay=decay_constant)(THETA)
    )(0.3)
    close(slope, jnp.sum(THETA["w"] ** 2) / 4)


@pytest.mark.parametrize("label", range(CLASSES))
def test_cross_entropy(label):
    """Numpy loop: -log softmax, far from overflow and near it."""
    for size in (1.0, 300.0):
        logits = size * RNG.normal(size=CLASSES)
        expected = cross_entropy_loop(logits, label)
        close(flow.cross_entropy(jnp.asarray(logits), label), expected)
    huge = jnp.array([1e4, 0.0, 0.0, 0.0])
    close(flow.cross_entropy(huge, 1), 1e4)


@pytest.mark.parametrize("label", [-1, CLASSES, 100])
def test_label_that_is_no_class(label):
    """Closed form: NaN, which stops a run, and not the loss of another class."""
    assert np.isnan(flow.cross_entropy(jnp.zeros(CLASSES), label))
    assert np.isnan(jax.jit(flow.cross_entropy)(jnp.zeros(CLASSES), label))


@pytest.mark.parametrize("label", [jnp.float32(1), jnp.array(True)])
def test_labels_of_another_type(label):
    """Closed form: labels are whole numbers, also inside jit."""
    message = f"^labels must be whole numbers, got {label.dtype}"
    for loss in (flow.cross_entropy, jax.jit(flow.cross_entropy)):
        with pytest.raises(ValueError, match=message):
            loss(jnp.zeros(CLASSES), label)


def test_own_loss():
    """Closed form: a user's loss is averaged over samples."""
    risk = flow.empirical_risk(apply, INPUTS, TARGETS, loss=lambda output, target: output[0])
    close(risk(THETA), jnp.mean(jax.vmap(apply, in_axes=(None, 0))(THETA, INPUTS)[:, 0]))


def test_trees_of_samples():
    """Closed form: inputs may be a tree with samples along the leading axis."""
    tree = {"x": INPUTS, "scale": jnp.arange(1.0, SAMPLES + 1)}
    risk = flow.empirical_risk(
        lambda theta, sample: sample["scale"] * apply(theta, sample["x"]), tree, TARGETS, chunk=2
    )
    outputs = tree["scale"][:, None] * jax.vmap(apply, in_axes=(None, 0))(THETA, INPUTS)
    close(risk(THETA), jnp.mean(jnp.sum((outputs - TARGETS) ** 2, axis=1)) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": INPUTS.at[2, 1].set(jnp.nan)}, "inputs must be finite, got 1 NaN or infinite"),
        ({"targets": TARGETS.at[0].set(jnp.inf)}, "targets must be finite, got 4 NaN or infinite"),
        ({"targets": TARGETS[:5]}, "targets must be as many as inputs, got 5 and 7"),
        (
            {"inputs": INPUTS[:0], "targets": TARGETS[:0]},
            "the number of samples must be an .*got 0",
        ),
        ({"loss": "squared"}, "loss must be one of square, .*got 'squared'; did you mean 'square'"),
        ({"chunk": 0}, "chunk must be an integer >= 1, got 0"),
        ({"chunk": -3}, "chunk must be an integer >= 1, got -3"),
    ],
)
def test_refused_risks(options, message):
    """Closed form: got, expected, remedy."""
    options = {"inputs": INPUTS, "targets": TARGETS, **options}
    with pytest.raises(ValueError, match=f"^{message}"):
        flow.empirical_risk(apply, options.pop("inputs"), options.pop("targets"), **options)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_refused_decay(bad):
    """Closed form: the decay is finite and >= 0."""
    with pytest.raises(ValueError, match=rf"^weight_decay must be .*>= 0, got {bad}"):
        flow.energy(risk_of("square", None), decay, weight_decay=bad)


def test_refused_shapes():
    """Closed form: targets of another shape than the outputs, which broadcasting would hide."""
    with pytest.raises(
        ValueError, match=r"targets must have the outputs' shape \(4,\), got \(1,\)"
    ):
        inspect.unwrap(flow.square)(jnp.ones(CLASSES), jnp.ones(1))
