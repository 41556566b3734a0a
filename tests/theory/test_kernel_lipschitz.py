import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS
from helpers import round_off

from meanfield import nn, theory


@pytest.mark.parametrize("name", KERNELS)
def test_lipschitz_constants(name):
    """Theorem: no derivative of the weights exceeds Lambda, at 500 queries and keys."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-1.5, 1.0, size=(500, 1, 1))
    pairs = [jnp.asarray(sizes * rng.normal(size=(500, 4, 3))) for _ in range(2)]

    def norm(queries, keys):
        moved = jax.jacrev(KERNELS[name], argnums=(0, 1))(queries, keys)
        return jnp.linalg.norm(jnp.concatenate([m.reshape(16, 12) for m in moved], axis=1), 2)

    found = np.asarray(jax.jit(jax.vmap(norm))(*pairs))
    spectral = [np.linalg.norm(np.asarray(each), 2, axis=(1, 2)) for each in pairs]
    bound = KERNELS[name].lipschitz(*spectral, 4, 3)
    assert np.all(found <= bound)
    assert np.max(found / bound) > 0.3


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_those_of_networks(name):
    """Independent path: the weights of `meanfield.nn`, bandwidth and scale given or not."""
    rng = np.random.default_rng(1)
    queries, keys = (jnp.asarray(rng.normal(size=(4, 3))) for _ in range(2))
    pairs = {
        "softmax": [(theory.SoftmaxKernel(scale=s), nn.softmax(s)) for s in (None, 0.3)],
        "gaussian": [
            (theory.GaussianKernel(bandwidth=c, scale=s), nn.gaussian(c, scale=s))
            for c, s in ((0.5, None), (2.0, 0.3))
        ],
    }
    for kernel, expected in pairs[name]:
        bound = {"rtol": round_off(), "atol": round_off()}
        np.testing.assert_allclose(kernel(queries, keys), expected(queries, keys), **bound)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_the_constant_follows_the_options_of_its_kernel(scale):
    """Closed form: Lambda is linear in the scale of softmax, and in sqrt(c s) of the Gaussian."""
    given = np.array([3.0]), np.array([4.0]), 8, 4
    soft = theory.SoftmaxKernel(scale=scale).lipschitz(*given)
    np.testing.assert_allclose(soft, scale * 2.5, rtol=round_off())
    wide = theory.GaussianKernel(bandwidth=0.1, scale=scale).lipschitz(*given)
    np.testing.assert_allclose(wide, np.sqrt(16 * 0.2 * scale / np.e), rtol=round_off())
    # Equal options are one kernel, so that programs are compiled once.
    assert theory.SoftmaxKernel(scale=scale) == theory.SoftmaxKernel(scale=scale)


def test_refusals():
    """Closed form: options that no kernel has."""
    with pytest.raises(ValueError, match="^bandwidth must be a finite number > 0, got 0"):
        theory.GaussianKernel(bandwidth=0.0)
    with pytest.raises(ValueError, match="^scale must be a finite number > 0, got -1"):
        theory.SoftmaxKernel(scale=-1.0)
