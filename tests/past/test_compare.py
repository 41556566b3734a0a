import numpy as np

from meanfield import past, store


def run(loss, **manifest):
    arrays = {"times": np.arange(3.0), "loss": np.full((2, 3), loss), "steps": np.array(12)}
    return store.Run(arrays, {"experiment": "toy", "config": {"heads": [4], "rate": 1}} | manifest)


def test_what_differs(tmp_path):
    """Closed form: choices, versions and commits that differ, and no others; numbers and ends."""
    other = {"config": {"heads": [4], "rate": 2}, "versions": {"jax": "0.11", "numpy": "2"}}
    found = past.compare(
        {"a": run(1.0, versions={"jax": "0.10"}), "b|c": run(3.0, **other)}, out_dir=tmp_path
    )
    assert found.differences == {
        "rate": ["1", "2"],
        "jax": ["0.10", "0.11"],
        "numpy": ["none", "2"],
    }
    assert found.numbers == {"steps": [12, 12], "loss at the last of times": [1.0, 3.0]}
    assert "| rate | 1 | 2 |" in found.text
    np.testing.assert_array_equal(found.arrays["loss"]["1"]["values"], np.full((2, 3), 3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_equal_runs_differ_in_nothing(tmp_path):
    """Equality: a run beside itself."""
    found = past.compare({"a": run(1.0), "b": run(1.0)}, out_dir=tmp_path)
    assert found.differences == {}
    assert "## What differs\n\nNothing.\n" in found.text
