"""Numbers asked for and measured of the attention benchmark.

    softmax:   seconds of another library / seconds of this one,     at least what is asked
    Gaussian:  seconds of the Gaussian / seconds of the softmax of this library,      at most

and on a GPU in bfloat16, where attention is fused:

    Gaussian:  seconds of the Gaussian / seconds of jax.nn's attention by cuDNN,      at most
    speed:     seconds of jax.nn's attention by cuDNN / seconds of this library's,    at least
    many heads, costly projections:  operations per second / those of a large product,   at least

One trap: a library that is not installed, or takes another precision than it was given, is left
out; the best of the others is then the best of those that are there.
"""

import numpy as np

from benchmarks.attention_peers import DOT_PRODUCT, LINEN, NNX, OURS, SPREAD, TORCH
from benchmarks.attention_problem import Shape, products

BEST = "best other"
# In float32, as the numbers were asked for; other shapes and precisions are reported only.
ASKED = {
    ("many", LINEN): 1.8,
    ("many", NNX): 1.8,
    ("many", TORCH): 1.2,
    **{("narrow", library): 1.3 for library in (LINEN, NNX, TORCH)},
    ("few", BEST): 1 / 1.05,
}
LARGEST_GAUSSIAN = 1.1
LARGEST_FUSED, LEAST_SPEED, LEAST_OF_PEAK = 1.15, 0.5, 0.4
AGREEMENT = {"bfloat16": 5e-2, "float32": 1e-5, "float64": 1e-12}
PEAK = "peak of matrix products"


def numbers(results: dict) -> list[dict]:
    """What the issue asks for and what was measured: a ratio for every pair of contenders."""
    found, rows = [], results["rows"]
    for setting in dict.fromkeys((row["shape"], row["dtype"]) for row in rows):
        here = [r for r in rows if (r["shape"], r["dtype"]) == setting and not r["left_out"]]
        found += _of_softmax(setting, here)
        if results["device"] == "gpu" and setting[1] == "bfloat16":
            found += _of_fused(setting, here, results)
        else:
            found += _of_kernels(setting, here, OURS, LARGEST_GAUSSIAN)
    return found


def _of_softmax(setting: tuple[str, str], here: list[dict]) -> list[dict]:
    """Other libraries over this one."""
    softmax = {row["library"]: row for row in here if row["kernel"] == "softmax"}
    ours = {name: softmax.pop(name) for name in (OURS, SPREAD) if name in softmax}
    fastest = min(softmax.values(), key=lambda row: row["seconds"])
    found = []
    for own in ours.values():
        for name, row in [*softmax.items(), (BEST, fastest)]:
            # Libraries of jax could be spread as well; PyTorch uses all cores as it is.
            alike = own["library"] == OURS or row["library"] == TORCH
            asked = ASKED.get((setting[0], name)) if setting[1] == "float32" else None
            found.append(_number(setting, name, row, own, least=asked if alike else None))
    return found


def _of_kernels(setting: tuple[str, str], here: list[dict], to: str, most: float) -> list[dict]:
    """This library's other kernels over a softmax, its own or another library's."""
    softmax = next((r for r in here if (r["kernel"], r["library"]) == ("softmax", to)), None)
    others = [r for r in here if r["library"] == OURS and r["kernel"] != "softmax"]
    name = "own softmax" if to == OURS else to
    # Seconds of the numerator come first, here this library's own.
    return [_number(setting, name, row, softmax, most=most) for row in others if softmax]


def _of_fused(setting: tuple[str, str], here: list[dict], results: dict) -> list[dict]:
    """What is asked of a GPU: beside cuDNN on long sequences, of the peak with many heads."""
    shape, dtype = setting
    if shape.startswith("long"):
        found = _of_kernels(setting, here, DOT_PRODUCT, LARGEST_FUSED)
        cudnn = [row for row in here if row["library"] == DOT_PRODUCT]
        own = [row for row in here if row["library"] == OURS]
        return found + [
            _number(setting, DOT_PRODUCT, row, mine, least=LEAST_SPEED)
            for row in cudnn
            for mine in own
        ]
    if shape != "wide" or dtype not in results["peaks"]:
        return []
    seconds = products(Shape(**results["shapes"][shape]), 1) / results["peaks"][dtype]
    peak = {"library": PEAK, "kernel": "softmax", "seconds": seconds, "error": 0.0,
            "processor_seconds": seconds}  # fmt: skip
    own = (row for row in here if (row["library"], row["kernel"]) == (OURS, "softmax"))
    return [_number(setting, PEAK, peak, row, least=LEAST_OF_PEAK) for row in own]


def _number(
    setting: tuple[str, str], other: str, row: dict, to: dict,
    *, least: float | None = None, most: float | None = None,
) -> dict:  # fmt: skip
    # A NaN must come through, which max() would lose.
    ratio, apart = row["seconds"] / to["seconds"], float(np.max([row["error"], to["error"]]))
    met = None if least is None else ratio >= least
    if most is not None:
        met = ratio <= most
    return {
        "shape": setting[0], "dtype": setting[1],
        "kernel": (to if most is None else row)["kernel"], "other": other,
        "own": (to if most is None else row)["library"], "library": row["library"],
        "ratio": ratio, "processor_ratio": row["processor_seconds"] / to["processor_seconds"],
        "asked": "" if met is None else f"≥ {least:.3g}" if most is None else f"≤ {most:.3g}",
        "met": None if met is None else bool(met),
        "apart": apart, "agree": bool(apart <= AGREEMENT[setting[1]]),
    }  # fmt: skip
