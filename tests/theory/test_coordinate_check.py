import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow, nn
from meanfield.theory import coordinate_check, coordinates

WIDTHS, DEPTHS, DIM = (4, 16, 64), (4, 8, 16), 4
SEEDS, SAMPLES, TOKENS = 48, 4, 3
TERMS = {"features", "particles[0]", "particles[1]", "decay[0]", "decay[1]"}


def drawn(width, depth, dim, mean, spread):
    """Particles of both blocks, data and targets of every seed."""
    rng, same = np.random.default_rng([width, depth]), np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(mean + spread * rng.normal(size=(SEEDS, depth, width, *shape)))

    heads = nn.Head(*(normal(dim, 2) for _ in range(3)), normal(2, dim))
    data = jnp.asarray(same.normal(size=(SEEDS, SAMPLES, TOKENS, dim)))
    # Residuals of one size at all widths: targets far from the outputs.
    targets = jnp.asarray(np.resize([2.0, -2.0], SEEDS))
    return (heads, nn.Neuron(normal(dim), normal(), normal(dim))), data, targets


def moved(factors, particles, inputs, target):
    """What three steps move, for a law given as five numbers: one program serves all laws."""
    width, depth, token, time, decay = factors
    law = nn.Scaling(
        name="numbers",
        width_factor=lambda m: width,
        depth_factor=lambda layers: depth,
        token_factor=lambda d: token,
        time=lambda layers, m: time,
        decay=lambda layers, m: decay,
    )
    dim = inputs.shape[-1]
    blocks = (nn.attention(dim=dim, head_dim=2), nn.mlp(dim=dim, activation=jnp.tanh))
    network = nn.network(blocks, depth=1, scaling=law)

    def features(particles):
        return jax.vmap(network.apply, in_axes=(None, 0))(particles, inputs)

    def risk(theta):
        return jnp.mean((jnp.mean(features(theta.blocks)[:, -1], axis=1) - target) ** 2)

    def velocity(energy, particles):
        field = flow.gradient_field(energy, lambda theta: nn.Theta(1.0, (time, time), 1.0))
        return field(0.0, nn.Theta((), particles, ())).blocks

    penalty = flow.energy(
        lambda theta: 0.0,
        lambda theta: nn.Theta(0.0, (decay, decay), 0.0),
        weight_decay=jnp.ones(()),
    )
    return coordinates(
        features,
        functools.partial(velocity, risk),
        functools.partial(velocity, penalty),
        particles,
        step=0.01,
        steps=3,
    )


EVERY = jax.jit(jax.vmap(moved, in_axes=(None, 0, 0, 0)))


def sizes(law, width, depth, *, dim=DIM, mean=0.2, spread=0.2, into=1.0, weight_decay=1.0, **wrong):
    """The sizes of every seed, with the law's own numbers unless wrong ones are given."""
    numbers = {
        "width": law.width_factor(width),
        "depth": law.depth_factor(depth),
        "token": law.token_factor(dim),
        "time": law.time(depth, width),
        "decay": law.decay(depth, width),
    } | wrong
    numbers["decay"] *= weight_decay
    (heads, neurons), *data = drawn(width, depth, dim, mean, spread)
    heads = nn.Head(*(into * leaf for leaf in heads[:3]), heads.output)
    neurons = neurons._replace(weight_in=into * neurons.weight_in)
    return EVERY(jnp.asarray([*numbers.values()]), (heads, neurons), *data)


def checked(law, **options):
    return coordinate_check(functools.partial(sizes, law, **options), WIDTHS, DEPTHS)


def slopes(check, term):
    return [found.slope for found in check.slopes[term].values()]


def failing(check):
    return {sentence.split()[0] for sentence in check.failures}


def test_mean_field_passes():
    """Order: features, particles and decay move alike at all widths and depths; 0 +- 0.1."""
    check = checked(nn.mean_field())
    assert check.passed
    assert check.failures == ()
    assert set(check.slopes) == TERMS == set(check.sizes)
    assert all(size.shape == (len(WIDTHS), len(DEPTHS)) for size in check.sizes.values())


def test_dropped_time_scale():
    """Theorem: without L M everything freezes as 1/(L M); every term says so, on both axes."""
    check = checked(nn.mean_field(), time=1.0)
    assert len(check.failures) == 2 * len(TERMS)
    assert all("shrinks with" in sentence for sentence in check.failures)
    for term in TERMS:
        assert slopes(check, term) == pytest.approx([-1.0, -1.0], abs=0.1)


def test_unscaled_decay():
    """Theorem: a decay without 1/(L M) is L M too strong; the features do not show it."""
    check = checked(nn.mean_field(), decay=1.0, weight_decay=1e-4)
    assert failing(check) == {"decay[0]", "decay[1]"}
    for term in failing(check):
        assert slopes(check, term) == pytest.approx([1.0, 1.0], abs=0.1)


def test_ntk_freezes():
    """Theorem: in the tangent regime a particle moves by 1/sqrt(L M), the features by O(1)."""
    check = checked(nn.ntk(), mean=0.0, spread=0.3, weight_decay=0.1)
    assert failing(check) == {"particles[0]", "particles[1]"}
    for term in failing(check):
        assert slopes(check, term) == pytest.approx([-0.5, -0.5], abs=0.1)


def complete_p(widths, depths, **options):
    """The maximal-update law, token dimension in proportion to the width."""

    def grown(width, depth):
        into = width**-0.5 if "token" in options else 1.0
        entries = {"mean": 0.0, "spread": 0.5, "into": into}
        return sizes(nn.complete_p(), width, depth, dim=width, **entries, **options)

    return coordinate_check(grown, widths, depths)


def test_complete_p():
    """Order: d in proportion to the width; 0 +- 0.1 in width and in depth, the decay included."""
    assert complete_p([16, 32, 64], [4]).passed
    assert complete_p([16], [4, 8, 16]).passed
    wrong = complete_p([16, 32, 64], [4], decay=1.0, weight_decay=1e-4)
    assert failing(wrong) == {"decay[0]", "decay[1]"}
    # With the fan-in in the particles and not in the map, tokens move by sqrt(d) more.
    wrong = complete_p([16, 32, 64], [4], token=1.0)
    assert wrong.slopes["features"]["width"].low > 0.25


def test_slopes_of_powers():
    """Closed form: exact powers, each axis for itself, by every seed; the band decides."""

    def powers(width, depth):
        return {"up": np.array([1.0, 3.0]) * width**0.3 * depth**-0.2, "still": np.ones(2)}

    check = coordinate_check(powers, (2, 8, 3), (1, 5, 4, 2), tolerance=0.25)
    np.testing.assert_allclose(check.slopes["up"]["width"], 0.3, rtol=round_off())
    np.testing.assert_allclose(check.slopes["up"]["depth"], -0.2, rtol=round_off())
    assert check.failures == (
        "up grows with width: slope 0.300 in [0.300, 0.300], expected 0 +- 0.25",
    )
    assert coordinate_check(powers, (2, 8, 3), [1], tolerance=0.31).passed


def test_intervals_cover():
    """Statistics: at 90 % the interval holds the slope in 90 % of 400 repeats, 4 errors apart."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        check = coordinate_check(
            lambda width, depth: {"x": width**0.05 * np.exp(0.3 * rng.normal(size=20))},
            (4, 8, 16, 32),
            (1,),
            confidence=0.9,
        )
        found = check.slopes["x"]["width"]
        covered += found.low <= 0.05 <= found.high
    assert abs(covered / 400 - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 400)


def test_noise_is_undecided():
    """Closed form: an interval that leaves the band on both sides is no verdict, and no pass."""
    noise = np.random.default_rng(1)
    check = coordinate_check(
        lambda width, depth: {"x": np.exp(noise.normal(size=4))}, (4, 8, 16), (1,)
    )
    (sentence,) = check.failures
    assert "x is undecided in width" in sentence
    assert not check.passed


def test_coordinates():
    """Closed form: x' = -(a + b) x by Euler's steps; what each part moved, per particle."""
    a, b, h = 0.7, 0.4, 0.1
    blocks = (jnp.full((2, 3, 4), 2.0), {"w": jnp.full((2, 5), 3.0)})

    def part(rate):
        return lambda blocks: jax.tree.map(lambda leaf: -rate * leaf, blocks)

    found = coordinates(lambda blocks: blocks[0], part(a), part(b), blocks, step=h, steps=3)
    shrunk = 1 - (1 - h * (a + b)) ** 3
    expected = {
        "features": 2 * shrunk,
        "particles[0]": a / (a + b) * shrunk * 4,
        "decay[0]": b / (a + b) * shrunk,
        "particles[1]": a / (a + b) * shrunk * 3,
        "decay[1]": b / (a + b) * shrunk,
    }
    assert {term: float(size) for term, size in found.items()} == pytest.approx(expected)
    assert "decay[0]" not in coordinates(lambda blocks: blocks, part(a), None, blocks, step=h)


BAD = [
    ("^widths must be one size, or at least three", {"widths": (4, 8)}),
    ("^depths must be one size, or at least three", {"depths": (4, 8, 8)}),
    ("^widths or depths must hold at least three", {"widths": (4,), "depths": (2,)}),
    ("^widths must be an integer >= 1, got 0", {"widths": (0, 1, 2)}),
    ("^a term must hold one size for each of >= 2 seeds", {"value": np.ones(1)}),
    ("^sizes must be positive and finite, got x = .* at width and depth", {"value": np.zeros(3)}),
    ("^confidence must lie in", {"confidence": 1.0}),
    ("^tolerance must be a finite number > 0", {"tolerance": 0.0}),
]


@pytest.mark.parametrize(("message", "wrong"), BAD)
def test_refusals(message, wrong):
    """Closed form: what cannot be fitted, or decides nothing."""
    given = {"value": np.ones(3), "widths": (4, 8, 16), "depths": (1,)} | wrong
    value, widths, depths = (given.pop(name) for name in ("value", "widths", "depths"))
    with pytest.raises(ValueError, match=message):
        coordinate_check(lambda width, depth: {"x": value}, widths, depths, **given)


def test_terms_must_agree():
    """Closed form: a term that one width lacks."""
    with pytest.raises(ValueError, match="^every width and depth must give the same terms"):
        coordinate_check(
            lambda width, depth: {"x" if width < 8 else "y": np.ones(2)}, (4, 8, 16), (1,)
        )
