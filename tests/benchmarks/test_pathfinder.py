"""The benchmark of the Pathfinder generator."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.pathfinder import SINGLE, TOGETHER, numbers
from meanfield import store


def test_tiny_run(tmp_path):
    """Equality: together and one by one the same images are drawn."""
    out = tmp_path / "tiny"
    words = ["pathfinder", "--preset", "tiny", "--quiet", "--out", str(out)]
    assert benchmarks.main(words) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    first, second = results["rows"]
    assert (first["contender"], second["contender"]) == (TOGETHER, SINGLE)
    np.testing.assert_allclose(first["brightness"], second["brightness"], rtol=1e-12)
    assert [n["level"] for n in results["numbers"]] == ["easy"]
    arrays, _ = store.load_run(out)
    assert len(arrays["seconds"]) == 2
    assert "## Asked and measured" in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "rates.png").stat().st_size > 8_000


def test_numbers():
    """Closed form: rates and ratios of rounds written down here."""
    shared = {"level": "hard", "images": 100}
    rows = [
        {**shared, "contender": TOGETHER, "processor_samples": [0.5, 0.4, 1.0],
         "samples": [1.0, 2.0, 1.0]},
        {**shared, "contender": SINGLE, "processor_samples": [1.0, 2.0, 1.0], "samples": [1.0]},
    ]  # fmt: skip
    (found,) = numbers(rows)
    assert (found["rate"], found["wall_rate"], found["ratio"], found["met"]) == (200, 100, 2, True)
    np.testing.assert_allclose(found["quartiles"], [100 / 0.75, 100 / 0.45])


@pytest.mark.parametrize("words", [("--levels", "odd"), ("--images", "0"), ("--rounds", "1")])
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["pathfinder", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
