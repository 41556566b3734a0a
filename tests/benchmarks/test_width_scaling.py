import json

import jax
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import attention_problem, width_numbers, width_report
from benchmarks import width_scaling as program
from benchmarks.attention_peers import LINEN, NNX, OURS
from benchmarks.attention_problem import Contender, Shape
from meanfield import store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["width_scaling", "--preset", "tiny", "--quiet", "--out", str(out)]
    # Flax broadcasts ranks, which the suite forbids.
    with jax.numpy_rank_promotion("allow"):
        assert benchmarks.main(words) == 0
    return out


def test_tiny_run(tiny):
    """Independent library: flax gives the same outputs and gradients, devices the same gradient."""
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    rows = [row for row in results["rows"] if not row["left_out"]]
    assert {row["library"] for row in rows} == {OURS, LINEN}
    assert max(row["error"] for row in rows) < 1e-5
    assert [row["heads"] for row in rows if row["library"] == OURS] == [1, 2, 4]
    (spread,) = results["devices"]
    assert (spread["devices"], spread["heads"]) == (2, 2)
    assert max(spread["apart"], spread["flow apart"]) <= width_numbers.ROUND_OFF
    assert spread["flow one"]["gradients"] == spread["flow several"]["gradients"] > 0
    assert [each["heads"] for each in results["flows"]] == [2]
    assert [each["heads"] for each in results["growth"]] == [1, 2, 4]
    assert min(results["peaks"]) > 0
    assert results["environment"]["device"]["backend"] == "cpu"
    assert results["seeds"][0]["spread"] > 0
    assert 0 < results["seeds"][0]["floor"] <= 1.1 * results["seeds"][0]["seeds"]
    arrays, _ = store.load_run(tiny)
    assert len(arrays["seconds"]) == len(results["rows"])
    assert "## Asked and measured" in (tiny / "report.md").read_text(encoding="utf-8")
    assert (tiny / "scaling.png").stat().st_size > 10_000


def row(library, heads, seconds, scratch):
    return {
        "scan": "heads", "library": library, "heads": heads, "depth": 2, "tokens": 3,
        "seconds": seconds, "processor_seconds": seconds, "scratch_bytes": scratch,
        "argument_bytes": 10.0, "output_bytes": 10.0, "left_out": "", "error": 1e-6,
    }  # fmt: skip


def test_numbers():
    """Closed form: powers and shares written down here."""
    rows = [row(OURS, heads, heads**1.02, heads**1.0) for heads in (1, 4, 16, 64)]
    rows += [row(LINEN, heads, 1.0, 100.0 * heads) for heads in (1, 4, 16, 64)]
    seeds = [{
        "seeds": 3, "heads": 4, "devices": 2, "spread": 2.7, "processor_ratio": 2.0, "alone": 3.1,
        "mixed": 1.9, "floor": 2.65,
    }]  # fmt: skip
    spread = {"devices": 8, "heads": 64, "processor_seconds": 1.1, "seconds": 1.2, "apart": 0.0,
              "flow processor_seconds": 1.3, "flow seconds": 0.9, "flow apart": 1e-6}  # fmt: skip
    grown = [{"heads": heads, "library": OURS, "bytes": heads**0.2} for heads in (4, 16, 64)]
    growth = [
        {"heads": heads, "seconds": heads**1.03, "processor_seconds": heads**0.94}
        for heads in (4, 16, 64)
    ]
    found = width_numbers.fits(rows, grown, growth, asymptotic=4)
    results = {"rows": rows, "fits": found, "seeds": seeds, "devices": [spread]}
    by_name = {n["what"]: (round(n["value"], 6), n["met"]) for n in width_numbers.numbers(results)}
    assert by_name == {
        "memory at 64 heads over flax.linen's": (round(84 / 6420, 6), True),
        "largest difference of outputs and gradients from flax.linen's": (1e-6, True),
        "exponent of time in heads": (1.03, True),
        "exponent of processor time in heads": (0.94, False),
        "exponent of activation memory in heads": (0.2, False),
        "3 seeds in one program over one seed, both on 2 virtual devices, 4 heads": (2.7, False),
        "8 virtual devices, 64 heads: processor time over one's": (1.1, True),
        "8 virtual devices, 64 heads: largest difference": (0.0, True),
        "8 virtual devices, 64 heads: a flow's processor time over one's": (1.3, False),
        "8 virtual devices, 64 heads: a flow's largest difference": (1e-6, True),
    }
    notes = [n["note"] for n in width_numbers.numbers(results) if "seeds" in n["what"]]
    assert notes[0].endswith("with no core idle and no work saved 2.65")
    assert {fit["points"] for fit in found} == {3}
    flows = [{"heads": heads, "seconds": 3 * heads**1.5, "gradients": 3} for heads in (1, 4, 16)]
    (fit,) = width_numbers.flow_fit(flows)
    assert round(fit["slope"], 6) == 1.5
    assert not width_numbers.flow_fit(flows[:2])
    few = [row(NNX, heads, heads, heads) for heads in (4, 16)]
    assert not width_numbers.fits(few, [], [], asymptotic=4)


def test_networks():
    """Closed form: one size grows at a time, the others stay."""
    config = program.Config(heads=(8, 16, 32), depths=(1, 2, 3), tokens=(4, 5, 6), fixed=(9, 7, 5),
                            asymptotic=8)  # fmt: skip
    assert program._networks(config) == [
        *[("heads", heads, 7, 5) for heads in (8, 16, 32)],
        *[("depth", 9, depth, 5) for depth in (1, 2, 3)],
        *[("tokens", 9, 7, tokens) for tokens in (4, 5, 6)],
    ]


def test_products():
    """Closed form: operations of one head of one sample, counted by hand."""
    shape = Shape(heads=1, head_dim=2, dim=3, tokens=5, batch=1)
    # Four products of 5 x 3 with 3 x 2, two of 5 x 2 with 2 x 5, a multiply and an add each.
    assert attention_problem.products(shape, 2) == 3 * 2 * 2 * (4 * 5 * 3 * 2 + 2 * 5 * 5 * 2)


def test_memory_of_a_program():
    """Closed form: a program reads two float32 vectors and writes one."""
    found = attention_problem.compiled(lambda x, y: x + y, *(np.ones(8, np.float32),) * 2)
    assert isinstance(found, Contender)
    assert (found.argument_bytes, found.output_bytes) == (64, 32)
    assert found.compile_seconds > 0
    np.testing.assert_array_equal(found.run(), np.full(8, 2.0))


def test_labels():
    """Closed form: numbers stand no closer than a sixth of the axis."""
    assert width_report._labels([1, 2, 4, 8]) == ["1", "2", "4", "8"]
    assert width_report._labels([1, 4, 16, 48, 64]) == ["1", "4", "16", "", "64"]


@pytest.mark.parametrize(
    "words",
    [
        ("--heads", "4", "8"),
        ("--depths", "1", "4", "2"),
        ("--tokens", "0", "1", "2"),
        ("--asymptotic", "4096"),
        ("--devices", "3"),
        ("--device-heads", "3"),
        ("--horizon", "0"),
        ("--scans", "depth"),
        ("--libraries", "flax.nnx"),
    ],
)
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["width_scaling", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
