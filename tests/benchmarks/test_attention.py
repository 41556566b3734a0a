import json
import types

import jax
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import (
    attention,
    attention_numbers,
    attention_peers,
    attention_problem,
    attention_torch,
)
from benchmarks.attention_peers import DOT_PRODUCT, EINSUM, LINEN, NNX, OURS, SPREAD, TORCH
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
    """Independent library: outputs and gradients of flax, of jax.nn and by einsum are alike."""
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    present = [row for row in rows if not row["left_out"]]
    for dtype, libraries in (("bfloat16", 5), ("float32", 5), ("float64", 3)):
        here = [row for row in present if row["dtype"] == dtype]
        assert len({row["library"] for row in here}) == libraries
        assert max(row["error"] for row in here) <= attention_numbers.AGREEMENT[dtype]
        assert sum(row["library"] == OURS for row in here) == 3
    reasons = {row["left_out"].split(":")[0] for row in rows if row["left_out"]}
    assert reasons == {attention_peers.IN_SINGLE, "PyTorch is not installed", "one device"}
    assert all(number["agree"] and number["ratio"] > 0 for number in results["numbers"])
    assert results["environment"]["versions"]["jax"] == jax.__version__
    arrays, manifest = store.load_run(tiny)
    assert len(arrays["seconds"]) == len(rows)
    assert manifest["experiment"] == "attention"
    assert "## Asked and measured" in (tiny / "report.md").read_text(encoding="utf-8")
    assert (tiny / "seconds.png").stat().st_size > 10_000


def row(library, seconds, shape="many", **more):
    return {
        "shape": shape, "dtype": "float32", "kernel": "softmax", "library": library, "error": 0.0,
        "seconds": seconds, "processor_seconds": 2 * seconds, "left_out": "", **more,
    }  # fmt: skip


def numbers(rows, device="cpu", **results):
    return attention_numbers.numbers({"device": device, "rows": rows, "peaks": {}, **results})


def test_disagreement_comes_through():
    """Theorem: two that differ do not agree, nor does what is not a number, whichever it is."""
    for errors in ((0.0, np.nan), (np.nan, 0.0), (0.0, 1.0)):
        own, other = errors
        found = numbers([row(OURS, 1.0, error=own), row(LINEN, 2.0, error=other)])
        assert found
        assert not any(number["agree"] for number in found)


def test_ratios():
    """Closed form: times written down here; one left out does not count."""
    rows = [
        row(OURS, 1.0), row(LINEN, 2.0), row(NNX, 1.5), row(TORCH, np.nan, left_out="absent"),
        row(OURS, 1.2, kernel="gaussian"),
    ]  # fmt: skip
    found = {n["other"]: (n["ratio"], n["met"]) for n in numbers(rows)}
    assert found == {
        LINEN: (2.0, True), NNX: (1.5, False), attention_numbers.BEST: (1.5, None),
        "own softmax": (1.2, False),
    }  # fmt: skip
    spread = numbers([*rows, row(SPREAD, 0.5)])
    assert [n["ratio"] for n in spread if n["own"] == SPREAD] == [4.0, 3.0, 3.0]
    assert [n["ratio"] for n in spread if n["own"] == OURS] == [2.0, 1.5, 1.5, 1.2]
    few = [row(OURS, 1.0, shape="few"), row(EINSUM, 0.96, shape="few")]
    best = numbers(few)[-1]
    assert (best["library"], best["met"]) == (EINSUM, True)


def test_ratios_of_a_gpu():
    """Closed form: beside cuDNN on long sequences, of the peak where there are many heads."""
    long, wide = ({"shape": shape, "dtype": "bfloat16"} for shape in ("long4k", "wide"))
    rows = [
        row(OURS, 2.0, **long), row(OURS, 2.2, kernel="gaussian", **long),
        row(DOT_PRODUCT, 2.0, **long), row(OURS, 4.0, **wide), row(LINEN, 8.0, **wide),
    ]  # fmt: skip
    shape = attention.SHAPES["wide"]
    peak = attention_problem.products(shape, 1) / 3.0
    given = {"shapes": {"wide": shape._asdict()}, "peaks": {"bfloat16": peak}}
    asked = [n for n in numbers(rows, "gpu", **given) if n["asked"]]
    assert [
        (n["other"], n["kernel"], round(n["ratio"], 6), n["asked"], n["met"]) for n in asked
    ] == [
        (DOT_PRODUCT, "gaussian", 1.1, "≤ 1.15", True),
        (DOT_PRODUCT, "softmax", 1.0, "≥ 0.5", True),
        (DOT_PRODUCT, "gaussian", round(2 / 2.2, 6), "≥ 0.5", True),
        (attention_numbers.PEAK, "softmax", 0.75, "≥ 0.4", True),
    ]
    assert not any(n["asked"].startswith("≥") for n in numbers(rows, **given))


def test_agreement():
    """Closed form: the worst entry of any array counts, and a NaN is never agreement."""
    truth = (np.array([1.0, -4.0]), np.array([100.0]))
    assert attention_problem.apart(truth, truth) == 0
    assert attention_problem.apart((np.array([1.0, -3.0]), np.array([101.0])), truth) == 0.25
    # The same squared norm, and yet not the same.
    assert attention_problem.apart((np.array([-4.0, 1.0]), np.array([100.0])), truth) == 1.25
    assert np.isnan(attention_problem.apart((np.array([np.nan, 1.0]), truth[1]), truth))


def test_heads_of_merged_kernels():
    """Round trip: merged kernels come apart into the heads they were made of."""
    given = attention_problem.problem(0, attention.SHAPES["small"], "float64", depth=2)
    found = attention_problem.parted(4, attention_problem.merged(given.heads))
    jax.tree.map(np.testing.assert_array_equal, found, given.heads)


def test_a_mesh():
    """Invariance: samples on a mesh of devices, here of one, give the same gradient."""
    shape = attention.SHAPES["small"]
    given = attention_problem.problem(0, shape, "float64")
    plain, spread = (
        attention_problem.answer(attention_peers.ours("softmax", shape, given, mesh))
        for mesh in (None, devices.mesh(data=1))
    )
    assert attention_problem.apart(spread, plain) < 1e-13


def test_no_torch_off_the_cpu(monkeypatch):
    """Closed form: its tensors lie on the CPU, so elsewhere it is left out."""
    given = attention_problem.problem(0, attention.SHAPES["small"], "float32")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    left_out = attention_torch.torch_layers(given, residual=None)
    assert left_out == "PyTorch is compared on a CPU only, got the device gpu"


@pytest.mark.parametrize(
    "words",
    [
        ("--shapes", "endless"),
        ("--precisions", "float16"),
        ("--all-precisions", "small"),
        ("--kernels", "gaussian"),
        ("--rounds", "1"),
        ("--peak-size", "0"),
    ],
)
def test_refusals(words, capsys):
    """Closed form: one sentence, status 2."""
    assert benchmarks.main(["attention", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
