import jax
import jax.numpy as jnp
import numpy as np

from meanfield import working_set


def test_the_largest_arrays():
    """Closed form: bytes counted by hand, inner functions and loops included, weights left out."""
    token = jnp.ones(3, np.float32)
    weights = jnp.ones((100, 100), np.float32)
    cases = (
        (lambda w, x: jnp.outer(x, x), 4 * 9, 0),
        (lambda w, x: jnp.sum(w @ w) * x, 4 * 3, 4),
        (lambda w, x: w[:, :3] @ x, 4 * 100, 4 * 300),
        (jax.jit(lambda w, x: jnp.sum(jnp.outer(x, x))), 4 * 9, 0),
        (jax.checkpoint(lambda w, x: jnp.sum(jnp.outer(x, x) @ w[:3])), 4 * 300, 4 * 300),
        (lambda w, x: jax.lax.map(lambda row: jnp.sum(row[:3] * x), w), 4 * 100, 4 * 3),
        (lambda w, x: jax.lax.map(lambda row: jnp.sum(jnp.outer(row, x)), w), 4 * 300, 4 * 100),
        (lambda w, x: jax.vmap(lambda row: jnp.sum(row[:3] * x))(w), 4 * 300, 4 * 300),
    )
    for function, *expected in cases:
        assert list(working_set.largest_arrays(function, weights, token)) == expected
    shape = jax.ShapeDtypeStruct((5,), np.float64)
    found = working_set.largest_arrays(lambda x: {"a": x[:, None] * x[None, :]}, shape)
    assert found.made == 8 * 25


def test_a_turn(monkeypatch):
    """Closed form: many times the weight, within what is done fast; fewer for a core alone."""
    least, most = working_set.LEAST, working_set.budget()
    weights = (0, least // 24, least, most)
    for alone, expected in ((True, [least, least, 24 * least, 3 * most]),
                            (False, [least, least, 4 * least, most])):  # fmt: skip
        assert [working_set.turn(each, most, alone=alone) for each in weights] == expected
        assert working_set.turn(0, most + 1, alone=alone) == (least if alone else most)
    assert working_set.size({"a": np.ones(3), "b": 1.0}) == 8 * 4
    assert working_set.fitting(100, least, room=4 * least) == 4
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert working_set.turn(0, 0, alone=True) == working_set.budget()


def test_what_fits(monkeypatch):
    """Closed form: as many as fit, at least one, at most all; divisors where they lose little."""
    monkeypatch.setitem(working_set.BUDGET, "cpu", 100)
    assert working_set.budget() == 100
    pieces = ((7, 10), (64, 10), (64, 30), (97, 30), (6, 24), (64, 101), (1, 1000), (5, 0))
    found = [working_set.fitting(number, each) for number, each in pieces]
    assert found == [7, 8, 2, 3, 3, 1, 1, 5]


def test_budget_of_devices(monkeypatch):
    """Closed form: a processor keeps megabytes close, an accelerator has room of its own."""
    small = working_set.budget()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert small < working_set.budget()
