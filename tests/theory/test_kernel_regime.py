import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow, theory

RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(12, 12))
KERNEL = jnp.asarray((FACTOR @ FACTOR.T).reshape(6, 2, 6, 2))
INDEFINITE = KERNEL - 5 * jnp.eye(12).reshape(6, 2, 6, 2)


@pytest.mark.parametrize("kernel", [KERNEL, INDEFINITE])
def test_smallest_eigenvalue(kernel):
    """Independent library: numpy's eigenvalues, by both ways, sign included."""
    expected = np.min(np.linalg.eigvals(np.asarray(kernel).reshape(12, 12)).real)
    scale = float(jnp.linalg.norm(jnp.ravel(kernel)))
    assert abs(theory.smallest_eigenvalue(kernel) - expected) < round_off() * scale
    by_product = theory.smallest_eigenvalue(
        lambda vector: jnp.tensordot(kernel, vector, 2), shape=(6, 2), tolerance=1e-12
    )
    assert abs(by_product - expected) < 1e-10 * scale


def test_smallest_eigenvalue_of_one():
    """Closed form: one sample with one output, of which the kernel is a number."""
    found = theory.smallest_eigenvalue(lambda v: -3.0 * v, shape=(1, 1))
    np.testing.assert_allclose(found, -3.0, rtol=round_off())


def test_distance_against_loops():
    """Numpy loop: norms entry by entry, centring over samples within each output."""
    moved = KERNEL + 0.3 * INDEFINITE**2
    found = theory.kernel_distance(jnp.stack([KERNEL, moved]), KERNEL)

    def centred(kernel):
        centring = np.eye(6) - np.ones((6, 6)) / 6
        blocks = np.zeros((6, 2, 6, 2))
        for a in range(2):
            for b in range(2):
                blocks[:, a, :, b] = centring @ np.asarray(kernel)[:, a, :, b] @ centring
        return blocks

    one, two = centred(moved), centred(KERNEL)
    difference = sum(float(x) ** 2 for x in np.ravel(moved - KERNEL)) ** 0.5
    relative = difference / sum(float(x) ** 2 for x in np.ravel(KERNEL)) ** 0.5
    alignment = np.sum(one * two) / np.sqrt(np.sum(one**2) * np.sum(two**2))
    np.testing.assert_allclose(found.relative, [0.0, relative], rtol=round_off())
    np.testing.assert_allclose(found.alignment, [1.0, alignment], rtol=round_off())
    assert alignment < 0.95


def test_what_the_alignment_does_not_see():
    """Invariance: a factor, and a function of one sample alone, leave the centred alignment."""
    constant = jnp.broadcast_to(jnp.asarray(RNG.normal(size=(6, 2, 1, 2))), KERNEL.shape)
    found = theory.kernel_distance(3 * KERNEL + constant, KERNEL)
    np.testing.assert_allclose(found.alignment, 1.0, rtol=round_off())
    assert found.relative > 1.5


def test_travel_along_a_flow():
    """Closed form: f = theta^2 x / 2, K = theta^2 x x'; the flow of theta saves its kernels."""
    inputs = jnp.asarray(RNG.normal(size=4))

    def apply(theta, x):
        return theta**2 * x / 2

    field = flow.gradient_field(lambda theta: -jnp.log(theta))  # theta^2 = theta_0^2 + 2 tau
    record = flow.gradient_flow(
        field,
        jnp.array(1.0),
        [0.0, 1.0, 4.0],
        rtol=1e-8,
        atol=1e-10,
        observe={"kernel": lambda theta: theory.tangent_kernel(apply, theta, inputs)},
    )
    kernels = jnp.asarray(record.observables["kernel"])
    found = theory.kernel_distance(kernels, kernels[0])
    np.testing.assert_allclose(found.relative, [0.0, 2.0, 8.0], rtol=1e-5)
    np.testing.assert_allclose(found.alignment, 1.0, rtol=round_off())


def test_refusals():
    """Closed form: two sets, holes, a product without its size, an accuracy out of reach."""
    with pytest.raises(ValueError, match="must be of one set with itself"):
        theory.smallest_eigenvalue(KERNEL[:3])
    with pytest.raises(ValueError, match="^the kernel must be finite"):
        theory.smallest_eigenvalue(KERNEL * jnp.nan)
    with pytest.raises(ValueError, match="^shape must be"):
        theory.smallest_eigenvalue(lambda vector: vector)
    with pytest.raises(ValueError, match="^kernel must be finite"):
        theory.kernel_distance(KERNEL * jnp.nan, KERNEL)
    with pytest.raises(ValueError, match="^the product with the kernel must be finite"):
        theory.smallest_eigenvalue(lambda vector: vector * jnp.nan, shape=(5, 1))
    with pytest.raises(ValueError, match=r"^kernels must end .* same samples"):
        inspect.unwrap(theory.kernel_distance)(KERNEL, KERNEL[:2, :, :2])
    with pytest.raises(ValueError, match="^the reference kernel must not be 0"):
        theory.kernel_distance(KERNEL, 0 * KERNEL)
    flat = jnp.asarray(np.logspace(-14, 0, 60))[:, None]
    with pytest.raises(ValueError, match="Lanczos' method must converge to 1e-15"):
        theory.smallest_eigenvalue(lambda v: flat * v, shape=(60, 1), tolerance=1e-15)
