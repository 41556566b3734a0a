import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import nn
from meanfield.nn import inits

KEY = jax.random.key(0)
DRAWS = 4000
TEMPLATE = nn.Head(*(jax.ShapeDtypeStruct(s, np.float64) for s in [(4, 3)] * 3 + [(3, 4)]))


def sample(measure, template=TEMPLATE, draws=DRAWS):
    """Independent draws of a measure, every leaf with a leading axis of draws."""
    keys = jax.random.split(KEY, draws)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: measure(key, template)))(keys))


def assert_mean(values, expected, *, cap):
    """The mean of independent values is within 5 of its standard errors, which are below `cap`."""
    error = np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
    assert np.max(error) < cap
    assert np.max(np.abs(np.mean(values, axis=0) - expected) / error) < 5


def entries(leaf):
    return leaf.reshape(len(leaf), -1)


@pytest.mark.parametrize(
    ("measure", "std_into", "std_out"),
    [
        (inits.gaussian(), 1.0, 1.0),
        (inits.gaussian(0.5), 0.5, 0.5),
        (inits.gaussian(nn.Head(2.0, 2.0, 2.0, 0.1)), 2.0, 0.1),
        (inits.scaled(), 4**-0.5, 3**-0.5),
        (inits.scaled(nn.Head(2.0, 2.0, 2.0, 0.0)), 2.0 * 4**-0.5, 0.0),
    ],
)
def test_gaussian_moments(measure, std_into, std_out):
    """Closed form: mean 0, variance std^2 or gain^2 / fan-in, kurtosis 3; statistical, capped."""
    heads = sample(measure)
    for leaf, std in zip(heads, [std_into] * 3 + [std_out], strict=True):
        values = entries(leaf)
        if std == 0.0:
            np.testing.assert_array_equal(values, 0.0)
            continue
        assert_mean(values / std, 0.0, cap=0.02)
        assert_mean((values / std) ** 2, 1.0, cap=0.03)
        assert_mean((values / std) ** 4, 3.0, cap=0.25)


def test_entries_are_independent():
    """Closed form: the correlation matrix of all 48 entries of a head is the identity."""
    heads = sample(inits.gaussian())
    points = np.concatenate([entries(leaf) for leaf in heads], axis=1)
    correlations = np.corrcoef(points, rowvar=False)[np.triu_indices(48, 1)]
    # 1128 of them, each of standard error 1/sqrt(draws): the largest stays below 5.5 of those.
    assert np.max(np.abs(correlations)) < 5.5 / np.sqrt(DRAWS)


def test_scaled_vectors_and_scalars():
    """Closed form: a vector has its length as fan-in, a scalar 1; maps have size O(1)."""
    template = nn.Neuron(*(jax.ShapeDtypeStruct(s, np.float64) for s in [(16,), (), (16,)]))
    neurons = sample(inits.scaled(), template)
    assert_mean(16 * neurons.weight_in**2, 1.0, cap=0.03)
    assert_mean(neurons.bias[:, None] ** 2, 1.0, cap=0.03)
    assert_mean(np.sum(neurons.weight_out**2, axis=1), 1.0, cap=0.03)


@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_ball_moments(radius):
    """Closed form: |x| <= r, E|x|^2 = r^2 p/(p+2), (|x|/r)^p uniform, mean 0, isotropic."""
    particles = sample(inits.ball(radius), nn.Neuron(*map(shape_of, [(2,), (), (2,)])))
    points = np.concatenate([entries(leaf) for leaf in particles], axis=1)
    norms = np.linalg.norm(points, axis=1)
    p = points.shape[1]
    assert np.max(norms) <= radius
    assert np.max(norms) > 0.99 * radius
    assert_mean((norms / radius) ** 2, p / (p + 2), cap=0.005)
    assert_mean((norms / radius) ** p, 1 / 2, cap=0.005)
    assert_mean((norms / radius) ** (2 * p), 1 / 3, cap=0.006)
    assert_mean(points / radius, 0.0, cap=0.01)
    assert_mean((points / radius) ** 2, 1 / (p + 2), cap=0.005)


def shape_of(shape):
    return jax.ShapeDtypeStruct(shape, np.float64)


def test_shifted():
    """Closed form: the draw of the measure plus the mean, entry by entry or leaf by leaf."""
    base = inits.gaussian()(KEY, TEMPLATE)
    moved = inits.shifted(inits.gaussian(), 3.0)(KEY, TEMPLATE)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y + 3.0), moved, base)
    mean = nn.Head(0.0, 0.0, jnp.arange(12.0).reshape(4, 3), -1.0)
    moved = inits.shifted(inits.gaussian(), mean)(KEY, TEMPLATE)
    np.testing.assert_array_equal(moved.query, base.query)
    np.testing.assert_array_equal(moved.value, base.value + mean.value)
    np.testing.assert_array_equal(moved.output, base.output - 1.0)


@pytest.mark.parametrize("measure", [inits.gaussian(), inits.scaled(), inits.ball()])
def test_precision(measure):
    """Closed form: every leaf is drawn in the precision of the template."""
    mixed = {"a": jax.ShapeDtypeStruct((2,), np.float32), "b": jax.ShapeDtypeStruct((), np.float64)}
    drawn = measure(KEY, mixed)
    assert {name: leaf.dtype for name, leaf in drawn.items()} == {"a": np.float32, "b": np.float64}


@pytest.mark.parametrize("coupling", ["independent", "path"])
def test_nested_widths(coupling):
    """Equality: the first m particles of a width-M draw are the width-m draw."""
    block = nn.mlp(dim=3)
    wide, narrow = (
        inits.particles(KEY, block.draw, depth=3, width=width, coupling=coupling)
        for width in (7, 4)
    )
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, :4], y), wide, narrow)


def test_nested_depths():
    """Equality: the first layers of a deeper draw are the shallow draw."""
    deep, shallow = (
        inits.particles(KEY, jax.random.normal, depth=depth, width=4) for depth in (5, 2)
    )
    np.testing.assert_array_equal(deep[:2], shallow)


def test_couplings():
    """Closed form: a path is one particle at all depths; independent layers share none."""
    path, apart = (
        np.asarray(inits.particles(KEY, jax.random.normal, depth=3, width=50, coupling=coupling))
        for coupling in ("path", "independent")
    )
    np.testing.assert_array_equal(path, np.broadcast_to(path[0], path.shape))
    for drawn, size in ((path[0], 50), (apart, 150)):
        assert np.unique(drawn).size == size
    assert np.max(np.abs(np.corrcoef(apart)[np.triu_indices(3, 1)])) < 5 / np.sqrt(50)


def test_drawn_particles_follow_the_measure():
    """Closed form: moments of the normal law over layers and indices together."""
    drawn = np.asarray(inits.particles(KEY, jax.random.normal, depth=50, width=100)).ravel()
    assert_mean(drawn, 0.0, cap=0.02)
    assert_mean(drawn**2, 1.0, cap=0.03)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_refused_measures(bad):
    """Closed form: standard deviations and gains >= 0, radii > 0, means finite."""
    head = nn.Head(1.0, bad, 1.0, 1.0)
    for std in (bad, head):
        with pytest.raises(ValueError, match=f"std must be .*>= 0, got {bad}"):
            inits.gaussian(std)
        with pytest.raises(ValueError, match=f"gain must be .*>= 0, got {bad}"):
            inits.scaled(std)
    with pytest.raises(ValueError, match=f"radius must be a finite number > 0, got {bad}"):
        inits.ball(bad)
    if not np.isfinite(bad):
        with pytest.raises(ValueError, match="mean must be finite"):
            inits.shifted(inits.gaussian(), head)
    with pytest.raises(ValueError, match="prefix must end no later"):
        inits.gaussian((1.0, 2.0))(KEY, TEMPLATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"coupling": "independant"}, "coupling must be one of .*did you mean 'independent'"),
    ],
)
def test_refused_draws(options, message):
    """Closed form: got, expected, remedy."""
    options = {"depth": 1, "width": 1, **options}
    with pytest.raises(ValueError, match=f"^{message}"):
        inspect.unwrap(inits.particles)(KEY, jax.random.normal, **options)


def test_same_key_same_draw():
    """Equality: a key decides the draw; another key another draw."""
    draw = nn.attention(dim=4, head_dim=3).draw
    first, again, other = draw(KEY), draw(KEY), draw(jax.random.key(1))
    np.testing.assert_allclose(first.query, again.query, rtol=round_off())
    assert not np.any(np.asarray(first.query) == np.asarray(other.query))
