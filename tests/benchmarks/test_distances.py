import json

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import distance_report, distance_timing
from benchmarks import distances as program
from meanfield import store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["distances", "--preset", "tiny", "--quiet", "--out", str(out)]
    assert benchmarks.main(words) == 0
    return out


# ott-jax broadcasts ranks, which the suite forbids.
@pytest.fixture(scope="module", autouse=True)
def broadcasting():
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


def test_tiny_run(tiny):
    """Independent library: POT and ott-jax give the same numbers for all three distances."""
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    assert len(distance_report.settings(rows)) == len(results["numbers"]) == 6
    for number in results["numbers"]:
        assert number["apart"] <= distance_report.AGREEMENT[number["kind"]]
        assert number["agree"]
        assert number["ratio"] > 0
    libraries = {(row["kind"], row["library"]) for row in rows if not row["left_out"]}
    assert len(libraries) == 10
    arrays, manifest = store.load_run(tiny)
    assert len(arrays["seconds"]) == len(rows)
    assert manifest["device"]["x64"]
    page = (tiny / "report.md").read_text(encoding="utf-8")
    assert "## Asked and measured" in page
    assert (tiny / "seconds.png").stat().st_size > 10_000


def test_timing_takes_turns():
    """Closed form: the order of calls written down here, after two calls of each."""
    calls = []

    def contender(name):
        def call():
            calls.append(name)
            return float(len(name))

        return call

    functions = {name: contender(name) for name in ("a", "bb", "ccc")}
    found = distance_timing.interleaved(functions, rounds=3, least_seconds=0.0, patience=60.0)
    assert "".join(calls) == "aabbbbcccccc" + "abbccc" + "bbccca" + "cccabb"
    assert {name: timing.value for name, timing in found.items()} == {"a": 1, "bb": 2, "ccc": 3}
    assert all(len(timing.samples) == 3 for timing in found.values())


def row(library, seconds, error=0.0, left_out=""):
    return {
        "kind": "exact", "dim": 2, "size": 8, "library": library, "seconds": seconds,
        "processor_seconds": seconds, "error": error, "left_out": left_out,
    }  # fmt: skip


def test_ratio():
    """Closed form: times of three libraries written down here; one left out does not count."""
    rows = [row("meanfield", 3.0), row("POT", 2.0), row("ott-jax", np.nan, left_out="slow")]
    (number,) = distance_report.numbers(rows)
    assert (number["ratio"], number["fastest"], number["fast"]) == (1.5, "POT", False)
    assert number["agree"]
    (number,) = distance_report.numbers([rows[0], row("POT", 2.5, error=1e-9)])
    assert (number["ratio"], number["fast"], number["agree"]) == (1.2, True, False)


def test_a_slow_library_is_left_out():
    """Closed form: its next call is foreseen as a power of the size."""
    numbers = (0.0, 0.0, 2.0, 2.0, (2.0, 2.0), 2.0, 3)
    before = [program.Row("exact", 2, 8, "ott-jax", *numbers, left_out="")]
    assert program._foreseen(before, "exact", 2, 16, "ott-jax") == 16.0
    assert program._foreseen(before, "exact", 64, 16, "ott-jax") == 0.0
    left_out = [*before, before[0]._replace(size=16, left_out="slow")]
    assert program._foreseen(left_out, "exact", 2, 32, "ott-jax") == np.inf


@pytest.mark.parametrize(
    "words", [("--kinds", "angular"), ("--sizes", "0"), ("--sizes", "8", "4"), ("--rounds", "1")]
)
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["distances", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
