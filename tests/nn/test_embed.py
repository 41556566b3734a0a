import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import patches_loop

from meanfield import nn

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SHAPE = (4, 6, 2)


def positions_loop(length, dim):
    """Sine and cosine of position / 10000^(2 i / dim), interleaved, as in the paper."""
    table = np.zeros((length, dim))
    for place in range(length):
        for i in range(dim):
            angle = place / 10_000 ** (2 * (i // 2) / dim)
            table[place, i] = math.cos(angle) if i % 2 else math.sin(angle)
    return table


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_patches_against_loop(positions):
    """Numpy loop: patches sliced one by one, projected, behind a class token, plus positions."""
    image = RNG.normal(size=SHAPE)
    vit = nn.patches(shape=SHAPE, patch=2, dim=5, positions=positions)
    params = vit.init(KEY)
    tokens, mask = vit.apply(params, jnp.asarray(image))
    assert mask is None
    projected = patches_loop(image, 2) @ np.asarray(params["projection"])
    place = {
        "learned": lambda: np.asarray(params["positions"]),
        "sinusoidal": lambda: positions_loop(7, 5),
        "none": lambda: np.zeros((7, 5)),
    }[positions]()
    expected = np.concatenate([np.asarray(params["class_token"])[None], projected]) + place
    np.testing.assert_allclose(tokens, expected, rtol=round_off(), atol=round_off())


def test_byte_text():
    """Numpy loop: a row of the table per byte plus its position; padding is masked as a key."""
    text = nn.byte_text(length=6, dim=3)
    params = text.init(KEY)
    ids = jnp.array([105, 2, 256, 0, 0])
    tokens, mask = text.apply(params, ids)
    expected = [np.asarray(params["table"])[i] for i in ids]
    expected += np.asarray(params["positions"])[:5]
    np.testing.assert_allclose(tokens, expected, rtol=round_off())
    np.testing.assert_array_equal(mask, [True, True, True, False, False])
    assert params["table"].shape == (257, 3)


def test_padding_does_not_reach_other_tokens():
    """Invariance: a model of padded text gives the same class logits at any amount of padding."""
    text = nn.byte_text(length=6, dim=4, positions="sinusoidal")
    network = nn.network((nn.attention(dim=4, head_dim=2),), depth=2)
    read = nn.class_read(dim=4, classes=3, pool="mean")
    model = nn.model(text, network, read)
    theta = model.init(KEY, width=2)
    short, long = (jnp.array([5, 9, 7] + [0] * pad) for pad in (0, 3))
    np.testing.assert_allclose(
        model.apply(theta, long), model.apply(theta, short), rtol=round_off()
    )


@pytest.mark.parametrize(("length", "dim"), [(7, 6), (7, 5), (3, 1)])
def test_sinusoidal(length, dim):
    """Numpy loop: the formula of the paper; an odd dimension drops the last cosine."""
    found = nn.sinusoidal(length, dim)
    np.testing.assert_allclose(found, positions_loop(length, dim), rtol=round_off(), atol=1e-13)


def test_identity():
    """Closed form: the sample is its tokens."""
    tokens = jnp.asarray(RNG.normal(size=(3, 2)))
    found, mask = nn.identity().apply(nn.identity().init(KEY), tokens)
    np.testing.assert_array_equal(found, tokens)
    assert mask is None


def test_label_read():
    """Closed form: one coordinate of one token, the last of the last unless asked."""
    tokens = jnp.arange(6.0).reshape(3, 2)
    assert float(nn.label_read().apply((), tokens, None)) == 5.0
    assert float(nn.label_read(token=0, coordinate=1).apply((), tokens, None)) == 1.0
    assert nn.label_read().init(KEY) == ()


@pytest.mark.parametrize("pool", ["class_token", "mean", "masked", "nothing"])
def test_class_read(pool):
    """Numpy loop: the first token, or the average of those that are not masked."""
    tokens = RNG.normal(size=(4, 3))
    mask = {"masked": np.array([False, True, True, False]), "nothing": np.zeros(4, bool)}.get(pool)
    read = nn.class_read(dim=3, classes=2, pool="class_token" if pool == "class_token" else "mean")
    params = read.init(KEY) | {"bias": jnp.array([1.0, -1.0])}
    kept = tokens if mask is None else tokens[mask]
    pooled = tokens[0] if pool == "class_token" else np.sum(kept, axis=0) / max(len(kept), 1)
    found = read.apply(params, jnp.asarray(tokens), None if mask is None else jnp.asarray(mask))
    expected = pooled @ np.asarray(params["weight"]) + np.array([1.0, -1.0])
    np.testing.assert_allclose(found, expected, rtol=round_off())


def test_initial_sizes():
    """Closed form: projections have variance 1/fan-in, the bias is 0; statistical, 5 errors."""
    params = nn.patches(shape=(8, 8, 1), patch=4, dim=400).init(KEY)
    squares = 16 * np.asarray(params["projection"]).ravel() ** 2
    assert abs(np.mean(squares) - 1) < 5 * np.sqrt(2 / squares.size) < 0.1
    params = nn.class_read(dim=400, classes=16).init(KEY)
    squares = 400 * np.asarray(params["weight"]).ravel() ** 2
    assert abs(np.mean(squares) - 1) < 5 * np.sqrt(2 / squares.size) < 0.1
    np.testing.assert_array_equal(params["bias"], 0.0)


@pytest.mark.parametrize(
    ("constructor", "options", "message"),
    [
        ("patches", {"patch": 4}, "patch must divide the image of 4 x 6 pixels, got 4"),
        (
            "patches",
            {"shape": (8, 8)},
            r"shape must be \(height, width, channels\), got \(8, 8\)$",
        ),
        ("patches", {"patch": 0}, "patch must be an integer >= 1, got 0"),
        ("patches", {"dim": 0}, "dim must be an integer >= 1, got 0"),
        ("patches", {"shape": (0, 6, 2)}, "height must be an integer >= 1, got 0"),
        ("patches", {"positions": "sine"}, "positions must be one of .*got 'sine'"),
        ("patches", {"positions": "lerned"}, "positions must be one of .*mean 'learned'"),
        ("byte_text", {"length": 0}, "length must be an integer >= 1, got 0"),
        ("byte_text", {"vocabulary": 0}, "vocabulary must be an integer >= 1, got 0"),
        ("byte_text", {"dim": -1}, "dim must be an integer >= 1, got -1"),
        ("class_read", {"dim": 0}, "dim must be an integer >= 1, got 0"),
        ("class_read", {"classes": 0}, "classes must be an integer >= 1, got 0"),
        ("class_read", {"pool": "max"}, "pool must be one of class_token, mean, got 'max'"),
    ],
)
def test_refused_options(constructor, options, message):
    """Closed form: got, expected, remedy."""
    good = {
        "patches": {"shape": SHAPE, "patch": 2, "dim": 3},
        "byte_text": {"length": 4, "dim": 3},
        "class_read": {"dim": 3, "classes": 2},
    }[constructor]
    with pytest.raises(ValueError, match=f"^{message}"):
        inspect.unwrap(getattr(nn, constructor))(**{**good, **options})


def test_refused_samples():
    """Closed form: an image of another shape, a sequence longer than its positions."""
    vit = nn.patches(shape=SHAPE, patch=2, dim=3)
    with pytest.raises(ValueError, match=r"images must have shape \(4, 6, 2\), got \(6, 4, 2\)"):
        inspect.unwrap(vit.apply)(vit.init(KEY), jnp.ones((6, 4, 2)))
    text = nn.byte_text(length=4, dim=3)
    with pytest.raises(ValueError, match="at most 4 tokens, got 5: cut it or raise length"):
        text.apply(text.init(KEY), jnp.ones(5, int))


@pytest.mark.parametrize("bad", [257, 1000, -1])
def test_ids_outside_the_vocabulary(bad):
    """Closed form: such a token is NaN, inside jit too, and its gradient reaches no other row."""
    text = nn.byte_text(length=3, dim=2)
    params, ids = text.init(KEY), jnp.array([5, bad, 256])
    tokens, _ = jax.jit(text.apply)(params, ids)
    np.testing.assert_array_equal(np.isnan(tokens), [[False] * 2, [True] * 2, [False] * 2])
    good, _ = text.apply(params, jnp.array([5, 1, 256]))
    np.testing.assert_array_equal(tokens[::2], good[::2])
    slope = jax.grad(lambda params: jnp.nansum(text.apply(params, ids)[0]))(params)["table"]
    np.testing.assert_array_equal(np.flatnonzero(np.any(np.asarray(slope), axis=1)), [5, 256])


def test_mean_pooling_under_a_mask_of_pairs():
    """Closed form: the mean needs a mask per token; a mask of pairs is refused."""
    read = nn.class_read(dim=3, classes=2, pool="mean")
    message = r"^mean pooling needs a mask per token, of shape \(4,\), got \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(read.apply)(read.init(KEY), jnp.ones((4, 3)), nn.causal_mask(4))
