import jax
import jax.numpy as jnp
import numpy as np
from helpers import round_off

from meanfield import singular


def test_against_numpy_with_and_without_vmap():
    """Independent library: numpy, for wide, tall and square matrices along any axes."""
    rng = np.random.default_rng(0)
    bound = {"rtol": round_off(), "atol": round_off()}
    for shape in ((3, 4), (4, 3), (2, 5, 3, 3)):
        matrices = rng.normal(size=shape)
        expected = np.linalg.svd(matrices, compute_uv=False)
        found = singular.singular_values(jnp.asarray(matrices))
        np.testing.assert_allclose(found, expected, **bound)
        least = 0 * expected[..., -1] if shape[-2] > shape[-1] else expected[..., -1]
        np.testing.assert_allclose(singular.least_of_rows(jnp.asarray(matrices)), least, **bound)
    square = matrices + np.swapaxes(matrices, 2, 3)
    expected = np.linalg.eigvalsh(square)
    found = jax.jit(jax.vmap(singular.eigenvalues))(jnp.asarray(square))
    np.testing.assert_allclose(found, expected, **bound)
    norms = jax.vmap(singular.spectral_norm)(jnp.asarray(square))
    np.testing.assert_allclose(norms, np.linalg.norm(square, 2, axis=(2, 3)), **bound)


def test_round_off_is_no_rank():
    """Closed form: equal rows have rank one, whatever the decomposition leaves of the others."""
    for dtype in (jnp.float32, jnp.float64):
        equal = jnp.full((2, 3, 7), 0.1, dtype)
        np.testing.assert_array_equal(singular.least_of_rows(equal), 0)
        # A small value that is no round-off stays.
        near = equal.at[:, 0, 0].add(1e-3).at[:, 1, 1].add(1e-3)
        assert (singular.least_of_rows(near) > 1e-4).all()


def test_derivatives():
    """Independent library: those of jax's own decompositions, in both modes."""
    matrices = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4)))
    weights = jnp.array([1.0, -2.0, 0.5])
    for own, other, at in (
        (singular.singular_values, lambda m: jnp.linalg.svd(m, compute_uv=False), matrices),
        (singular.eigenvalues, jnp.linalg.eigvalsh, matrices @ jnp.swapaxes(matrices, 1, 2)),
    ):
        found, expected = (
            jax.grad(lambda m, f=f: jnp.sum(f(m) @ weights))(at) for f in (own, other)
        )
        # Eigenvalues are those of symmetric matrices: only the symmetric part has a meaning.
        if own is singular.eigenvalues:
            found, expected = (each + jnp.swapaxes(each, 1, 2) for each in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=round_off())
        forward = jax.jvp(jax.vmap(own), (at,), (at,))[1]
        np.testing.assert_allclose(
            forward, jax.jvp(other, (at,), (at,))[1], rtol=0, atol=round_off()
        )


def test_no_batched_decomposition_is_left():
    """Closed form: in the program every decomposition is of one matrix, however it is vmapped."""

    def one(matrix):
        return singular.singular_values(matrix), singular.eigenvalues(matrix @ matrix.T)

    text = jax.jit(jax.vmap(jax.vmap(one))).lower(jnp.ones((5, 7, 3, 3))).as_text()
    calls = [line for line in text.splitlines() if "custom_call" in line and "lapack" in line]
    assert len(calls) == 2
    assert all("tensor<3x3xf64>" in line or "tensor<1x3x3xf64>" in line for line in calls)
    assert not any("7x3x3" in line or "35x3x3" in line for line in calls)
