import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import nn

KEY = jax.random.key(0)
DRIFT = nn.block(lambda T, rate, mask: rate * T, jax.random.normal, name="rates")
PULL = nn.block(lambda T, rate, mask: -rate * T, jax.random.normal, name="pulls")


def model_of(law=None):
    network = nn.network((DRIFT, PULL), depth=3, scaling=law)
    vit = nn.patches(shape=(2, 4, 1), patch=2, dim=5)
    return nn.model(vit, network, nn.class_read(dim=5, classes=2))


def test_apply():
    """Closed form: readout of network of embedding, with a network that scales its tokens."""
    model, image = model_of(), jnp.arange(8.0).reshape(2, 4, 1)
    theta = model.init(KEY, width=(2, 4))
    rates, pulls = (np.mean(np.asarray(block), axis=1) / 3 for block in theta.blocks)
    tokens, mask = model.embedding.apply(theta.embedding, image)
    factor = float(np.prod((1 + rates) * (1 - pulls)))
    expected = model.readout.apply(theta.readout, factor * tokens, mask)
    np.testing.assert_allclose(model.apply(theta, image), expected, rtol=round_off())


def test_mask_reaches_the_network_and_the_readout():
    """Closed form: the embedding's mask is handed on to both."""
    seen = {"network": [], "readout": []}

    def attend(tokens, rate, mask):
        seen["network"].append(mask)
        return rate * tokens

    spy = nn.block(attend, jax.random.normal, mean=lambda T, rates, mask: attend(T, rates[0], mask))
    read = nn.Readout(lambda key: (), lambda _, tokens, mask: seen["readout"].append(mask))
    embedding = nn.Embedding(lambda key: (), lambda params, sample: sample)
    model = nn.Model(embedding=embedding, network=nn.network((spy,), depth=1), readout=read)
    mask = jnp.array([True, False])
    theta = nn.Theta((), (jnp.ones((1, 1)),), ())
    # jaxtyping would refuse a readout that returns nothing.
    type(model).apply.__wrapped__(model, theta, (jnp.ones((2, 3)), mask))
    for masks in seen.values():
        assert masks
        assert all(each is mask for each in masks)


def test_embedding_and_readout_do_not_depend_on_the_width():
    """Equality: one key, two widths: the same embedding and readout, nested particles."""
    narrow, wide = (model_of().init(KEY, width=width) for width in (2, 4))
    for name in ("embedding", "readout"):
        jax.tree.map(np.testing.assert_array_equal, getattr(narrow, name), getattr(wide, name))
    for few, many in zip(narrow.blocks, wide.blocks, strict=True):
        np.testing.assert_array_equal(few, many[:, :2])


@pytest.mark.parametrize(
    ("law", "times", "decays"),
    [
        (nn.mean_field(), (6.0, 12.0), (1 / 6, 1 / 12)),
        (nn.complete_p(), (6.0, 12.0), (1 / 6, 1 / 12)),
        (nn.ntk(), (1.0, 1.0), (1.0, 1.0)),
        (nn.standard(), (1.0, 1.0), (1.0, 1.0)),
    ],
)
def test_scales(law, times, decays):
    """Closed form: each block by its own depth x width; embedding and readout 1, decay if asked."""
    model, theta = model_of(law), nn.Theta((), (jnp.ones((3, 2)), jnp.ones((3, 4))), ())
    assert model.time_scales(theta) == nn.Theta(1.0, times, 1.0)
    assert model.decay_scales(theta) == nn.Theta(0.0, decays, 0.0)
    some = model.decay_scales(theta, embedding=0.5, readout=2.0)
    assert some == nn.Theta(0.5, decays, 2.0)


@pytest.mark.parametrize("name", ["apply", "time_scales", "decay_scales"])
@pytest.mark.parametrize("kind", [tuple, dict])
def test_theta_of_another_structure(name, kind):
    """Closed form: got, expected, where it comes from; no attribute that is missing."""
    model = model_of()
    arguments = (jnp.ones((2, 4, 1)),) if name == "apply" else ()
    # Without the suite's type checks, which would refuse it before the library does.
    method = inspect.unwrap(getattr(type(model), name))
    message = f"^theta must be a Theta from model.init, got {kind.__name__}$"
    with pytest.raises(ValueError, match=message):
        method(model, kind(), *arguments)
