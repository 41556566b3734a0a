import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import flow, processes

EVERYTHING = {
    "plain": [None, True, 3, 2**70, 0.1, math.inf, "text", ""],
    (2, "key"): (np.float32(0.1), np.int64(3), np.bool_(True), np.str_("word")),
    "arrays": [np.arange(6).reshape(2, 3).T, np.zeros((0, 2), np.float16), np.array(1.5)],
    "jax": (jnp.arange(3.0), jnp.ones((), jnp.int32)),
    "nested": {"record": flow.EnergyBalance(*np.ones((3, 2))), "empty": {}},
    "text": np.array(["a", "bcd"]),
}


def test_everything_comes_back():
    """Invariance: types, dtypes, shapes, values, the order of keys."""
    back = processes.unpacked(processes.packed(EVERYTHING))
    assert list(back) == list(EVERYTHING)
    for name, expected in EVERYTHING.items():
        assert jax.tree.structure(back[name]) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(back[name]), jax.tree.leaves(expected), strict=True):
            assert isinstance(one, type(other))
            assert np.asarray(one).dtype == np.asarray(other).dtype
            np.testing.assert_array_equal(one, other)
    assert math.isnan(processes.unpacked(processes.packed(math.nan)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"f": abs}, "got builtin_function_or_method"),
        ([{1, 2}], "got set"),
        (np.array([None]), "dtype object"),
        (jnp.ones(2, jnp.bfloat16), "dtype bfloat16"),
        (jax.random.key(0), "got dtype key"),
    ],
)
def test_refused(tree, message):
    """House rule: what is no array, number or text is refused by name, never pickled."""
    with pytest.raises(ValueError, match=message):
        processes.packed(tree)


@pytest.mark.parametrize("name", ["os:system", "nowhere:Thing", "meanfield.flow:Record.nothing"])
def test_only_known_classes(name):
    """House rule: a message names a NamedTuple of a module loaded here, and nothing else."""
    box = io.BytesIO()
    np.savez(box, np.array(json.dumps([name, []])))
    with pytest.raises(ValueError, match=f"hold a {name}, which is not known here"):
        processes.unpacked(box.getvalue())
