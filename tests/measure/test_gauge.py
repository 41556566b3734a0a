import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_family import assert_round_off
from oracles import head_loop, neuron_loop

from meanfield import measure, nn


def heads(m=5, d=6, k=2, seed=0):
    rng = np.random.default_rng(seed)
    return nn.Head(*rng.normal(size=(3, m, d, k)), rng.normal(size=(m, k, d)))


def regauged(heads, seed=1):
    """Other factors of the same maps: one matrix of GL(k) per head and product, condition 4."""
    rng = np.random.default_rng(seed)
    m, _, k = heads.query.shape

    def draw():
        left, right = np.linalg.qr(rng.normal(size=(2, m, k, k)))[0]
        return left * np.linspace(0.5, 2.0, k) @ right

    first, second = draw(), draw()
    return nn.Head(
        heads.query @ first,
        heads.key @ np.swapaxes(np.linalg.inv(first), 1, 2),
        heads.value @ second,
        np.linalg.inv(second) @ heads.output,
    )


def test_same_maps_have_the_same_coordinates():
    """Invariance: under GL(k) of each product; the update of tokens says that the maps agree."""
    first = heads()
    second = regauged(first)
    tokens = np.random.default_rng(2).normal(size=(4, 6))
    for j in range(5):
        updates = [head_loop(tokens, [np.asarray(f[j]) for f in h]) for h in (first, second)]
        assert_round_off(updates[0], updates[1], 10.0)
    coordinates = [measure.head_coordinates(*h) for h in (first, second)]
    assert coordinates[0].shape == (5, 72)
    assert_round_off(coordinates[0], coordinates[1], 10.0)
    # The raw parameters are as far apart as any two networks.
    assert measure.wasserstein(*(measure.clouds(jax.tree.map(lambda w: w[None], h))[0]
                                 for h in (first, second))) > 1.0  # fmt: skip


def test_networks_that_compute_the_same_are_at_distance_zero():
    """Invariance: gauge and order of heads, for coordinates and for the matrix of distances."""
    first = heads()
    second = nn.Head(*(factor[::-1] for factor in regauged(first)))
    networks = [{"c": measure.head_coordinates(*h)[None]} for h in (first, second)]
    assert measure.network_distance(*networks)[0] < 1e-13
    distances = measure.head_distances(first, second)
    assert measure.wasserstein_of(distances) < 1e-13
    assert distances[~np.eye(5, dtype=bool)[::-1]].min() > 1.0


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("other", [(7, 6, 2), (3, 6, 4)])
def test_distances_are_those_of_the_coordinates(other, scale):
    """Numpy loop: through the d x d matrices, which the distances do not form."""
    first, second = heads(), heads(*other, seed=3)
    found = measure.head_distances(first, second, scale=scale)
    x, y = (np.asarray(measure.head_coordinates(*h, scale=scale)) for h in (first, second))
    assert_round_off(found, np.linalg.norm(x[:, None] - y[None], axis=-1))
    assert_round_off(measure.wasserstein_of(found, p=3), measure.wasserstein(x, y, p=3))


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-4, 1e-2])
def test_heads_close_together(size):
    """Closed form: a perturbed factor, at distances that cancel in the formula of products."""
    first = heads(m=1)
    change = size * np.random.default_rng(4).normal(size=first.value.shape)
    expected = np.linalg.norm(change @ first.output)
    found = measure.head_distances(first, first._replace(value=first.value + change))[0, 0]
    # The perturbed factor itself is rounded.
    assert abs(found - expected) < 1e-14 + 1e-11 * expected


def test_scale_is_that_of_attention():
    """Closed form: the logits of one head are tokens times its first coordinates."""
    head = heads(m=1)
    tokens = np.random.default_rng(2).normal(size=(4, 6))
    product = np.asarray(measure.head_coordinates(*head))[0, :36].reshape(6, 6)
    logits = (tokens @ head.query[0]) @ (tokens @ head.key[0]).T / np.sqrt(2)
    assert_round_off(tokens @ product @ tokens.T, logits, 10.0)


def test_coordinates_of_a_tree():
    """Invariance: leading axes are kept, under jit too; coordinates have a gradient."""
    tree = jax.tree.map(lambda w: jnp.asarray(w).reshape(1, 5, *w.shape[1:]), heads())
    found = jax.jit(measure.head_coordinates)(*tree)
    assert found.shape == (1, 5, 72)
    assert_round_off(found[0], measure.head_coordinates(*heads()))
    gradient = jax.grad(lambda q: jnp.sum(measure.head_coordinates(q, *tree[1:])))(tree.query)
    assert np.isfinite(gradient).all()


def test_neurons():
    """Invariance: rescaled relu neurons, which compute the same, have balanced coordinates."""
    rng = np.random.default_rng(0)
    weight_in, weight_out, bias = (
        rng.normal(size=(5, 3)),
        rng.normal(size=(5, 3)),
        rng.normal(size=5),
    )
    factor = rng.uniform(0.1, 10.0, size=5)
    found = measure.neuron_coordinates(weight_in, bias, weight_out)
    assert_round_off(np.linalg.norm(found[:, :4], axis=1), np.linalg.norm(found[:, 4:], axis=1))
    other = (weight_in * factor[:, None], bias * factor, weight_out / factor[:, None])
    assert_round_off(measure.neuron_coordinates(*other), found)
    tokens = rng.normal(size=(4, 3))
    for j in range(5):
        balanced = np.asarray(found[j, :3]), float(found[j, 3]), np.asarray(found[j, 4:])
        update = neuron_loop(tokens, (weight_in[j], bias[j], weight_out[j]), lambda z: max(z, 0.0))
        assert_round_off(neuron_loop(tokens, balanced, lambda z: max(z, 0.0)), update)


def test_dead_neurons():
    """Closed form: a neuron that computes 0 is the origin, with a finite derivative."""
    zero, one = jnp.zeros(3), jnp.ones(3)
    assert not np.any(measure.neuron_coordinates(zero, jnp.zeros(()), one))
    assert not np.any(measure.neuron_coordinates(one, jnp.ones(()), zero))
    gradient = jax.grad(lambda w: jnp.sum(measure.neuron_coordinates(w, jnp.zeros(()), one)))(zero)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda h: h._replace(key=h.key[:, :, :1]), "heads must be factors query"),
        (lambda h: h._replace(output=h.value), "heads must be factors query"),
        (lambda h: nn.Head(*(f[0] for f in h)), "heads must be those of one layer"),
        (lambda h: nn.Head(*(f[:0] for f in h)), "heads must be those of one layer"),
        (lambda h: h._replace(key=h.key * np.nan), "heads must be finite"),
        (lambda h: heads(d=5), "equal token dimension, got 6 and 5"),
    ],
)
def test_refused_heads(spoil, message):
    """Closed form: one sentence; the annotations would refuse some first."""
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(measure.head_distances)(heads(), spoil(heads()))


def test_refused_empty_heads():
    """Closed form: no heads, no coordinates."""
    with pytest.raises(ValueError, match=r"there must be heads to compare.*got \(0, 6"):
        inspect.unwrap(measure.head_coordinates)(*(f[:0] for f in heads()))


def test_refused_neurons():
    """Closed form: the message gives the shapes."""
    with pytest.raises(ValueError, match=r"got shapes \[5, 3\], \[4\], \[5, 3\]"):
        inspect.unwrap(measure.neuron_coordinates)(np.ones((5, 3)), np.ones(4), np.ones((5, 3)))
