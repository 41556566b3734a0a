import json
import types

import jax
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import attention, attention_peers, attention_report, attention_torch
from benchmarks.attention_peers import EINSUM, LINEN, NNX, OURS, SPREAD, TORCH
from meanfield import devices, store


def absent(name):
    raise ImportError(name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    # Flax broadcasts ranks, which the suite forbids.
    with jax.numpy_rank_promotion("allow"), pytest.MonkeyPatch.context() as patch:
        # Left out wherever the suite runs.
        patch.setattr(attention_torch, "importlib", types.SimpleNamespace(import_module=absent))
        assert benchmarks.main(["attention", "--preset", "tiny", "--quiet", "--out", str(out)]) == 0
    return out


def test_tiny_run(tiny):
    """Independent library: gradients of flax, of jax.nn and by einsum have one squared norm."""
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    present = [row for row in rows if not row["left_out"]]
    for dtype, libraries in (("bfloat16", 5), ("float32", 5), ("float64", 3)):
        here = [row for row in present if row["dtype"] == dtype]
        assert len({row["library"] for row in here}) == libraries
        assert max(row["error"] for row in here) <= attention_report.AGREEMENT[dtype]
        assert sum(row["library"] == OURS for row in here) == 3
    reasons = {row["left_out"].split(":")[0] for row in rows if row["left_out"]}
    assert reasons == {attention_peers.IN_SINGLE, "PyTorch is not installed", "one device"}
    assert all(number["agree"] and number["ratio"] > 0 for number in results["numbers"])
    arrays, manifest = store.load_run(tiny)
    assert len(arrays["seconds"]) == len(rows)
    assert manifest["experiment"] == "attention"
    assert "## Asked and measured" in (tiny / "report.md").read_text(encoding="utf-8")
    assert (tiny / "seconds.png").stat().st_size > 10_000


def row(library, seconds, shape="many", kernel="softmax", left_out=""):
    return {
        "shape": shape, "dtype": "float32", "kernel": kernel, "library": library, "error": 0.0,
        "seconds": seconds, "processor_seconds": 2 * seconds, "left_out": left_out,
    }  # fmt: skip


def test_ratios():
    """Closed form: times written down here; one left out does not count."""
    rows = [
        row(OURS, 1.0), row(LINEN, 2.0), row(NNX, 1.5), row(TORCH, np.nan, left_out="absent"),
        row(OURS, 1.2, kernel="gaussian"),
    ]  # fmt: skip
    found = {n["other"]: (n["ratio"], n["met"]) for n in attention_report.numbers(rows)}
    assert found == {
        LINEN: (2.0, True), NNX: (1.5, False), attention_report.BEST: (1.5, None),
        "own softmax": (1.2, False),
    }  # fmt: skip
    spread = attention_report.numbers([*rows, row(SPREAD, 0.5)])
    assert [n["ratio"] for n in spread if n["own"] == SPREAD] == [4.0, 3.0, 3.0]
    assert [n["ratio"] for n in spread if n["own"] == OURS] == [2.0, 1.5, 1.5, 1.2]
    few = [row(OURS, 1.0, shape="few"), row(EINSUM, 0.96, shape="few")]
    best = attention_report.numbers(few)[-1]
    assert (best["library"], best["met"]) == (EINSUM, True)


def test_a_mesh():
    """Invariance: samples on a mesh of devices, here of one, give the same gradient."""
    shape = attention.SHAPES["small"]
    given = attention_peers.problem(0, shape, "float64")
    plain, spread = (
        attention_peers.squared_norm(attention_peers.ours("softmax", shape, given, mesh).run())
        for mesh in (None, devices.mesh(data=1))
    )
    assert spread == pytest.approx(plain, rel=1e-14)


@pytest.mark.parametrize(
    "words",
    [
        ("--shapes", "endless"),
        ("--precisions", "float16"),
        ("--all-precisions", "small"),
        ("--kernels", "gaussian"),
        ("--rounds", "1"),
    ],
)
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["attention", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
