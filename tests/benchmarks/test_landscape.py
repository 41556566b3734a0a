import json

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import landscape_report
from benchmarks.landscape_problems import BARE, LOOP, SURFACE
from meanfield import store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["landscape", "--preset", "tiny", "--quiet", "--out", str(out)]
    assert benchmarks.main(words) == 0
    return out


def test_tiny_run(tiny):
    """Equality: surfaces and bare evaluations give the risks of the loop, for both risks."""
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    rows, numbers = results["rows"], results["numbers"]
    assert landscape_report.problems(rows) == ["Transformer", "regression"]
    assert [(n["problem"], n["chunk"]) for n in numbers] == [("Transformer", 2), ("regression", 2)]
    assert max(row["error"] for row in rows) < 1e-5
    assert all(n["processor_ratio"] > 0 for n in numbers)
    arrays, _ = store.load_run(tiny)
    assert len(arrays["seconds"]) == len(rows) == 6
    assert "## Asked and measured" in (tiny / "report.md").read_text(encoding="utf-8")
    assert (tiny / "seconds.png").stat().st_size > 10_000


def row(contender, processor, wall, chunk=1):
    return {
        "problem": "p", "contender": contender, "chunk": chunk, "samples": wall,
        "processor_samples": processor, "processor_seconds": float(np.median(processor)),
    }  # fmt: skip


def test_numbers():
    """Closed form: ratios of rounds written down here; the fastest bare may have another chunk."""
    rows = [
        row(SURFACE, [2.0, 3.3, 8.0], [1.0, 1.0, 1.0]),
        row(BARE, [2.0, 3.0, 4.0], [2.0, 4.0, 1.0]),
        row(SURFACE, [4.0, 4.0, 4.0], [3.0, 3.0, 3.0], chunk=8),
        row(BARE, [2.0, 2.0, 2.0], [3.0, 3.0, 3.0], chunk=8),
        row(LOOP, [1.0], [1.0]),
    ]
    first, second = landscape_report.numbers(rows)
    np.testing.assert_allclose(first["processor_ratio"], 1.1)
    np.testing.assert_allclose(first["quartiles"], [1.05, 1.55])
    assert (first["wall_ratio"], first["against_fastest"]) == (0.5, 1.65)
    assert (second["processor_ratio"], second["wall_ratio"], second["met"]) == (2.0, 1.0, False)


@pytest.mark.parametrize(
    "words", [("--points", "0"), ("--chunks", "0"), ("--rounds", "1"), ("--least-seconds", "-1")]
)
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["landscape", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
