"""Fitted exponents, numbers asked for and measured of the width benchmark.

    memory of a gradient = arguments + outputs + scratch
    activations = scratch of many samples at once - scratch of few

One trap: an exponent of a few points says as much as its interval; both are given.
"""

import numpy as np

from benchmarks.attention_peers import LINEN, OURS
from benchmarks.attention_rows import COLORS
from meanfield import rates

SCANS = {"heads": "heads", "depth": "layers", "tokens": "tokens"}
QUANTITIES = {
    "seconds": "time",
    "processor_seconds": "processor time",
    "scratch_bytes": "scratch memory",
    "memory": "memory",
    "activations": "activation memory",
}
TIMES = ("seconds", "processor_seconds")
# Asked: shares of flax.linen's memory, exponents, and costs against one seed and one device.
LARGEST_SHARE, TIME_EXPONENT, EXPONENT_ERROR, ACTIVATION_EXPONENT = 0.25, 1.0, 0.05, 0.1
# A slope has an interval from as many points on.
LEAST_POINTS = 3
LARGEST_SEEDS, LARGEST_WORK = 2.6, 1.15
ROUND_OFF = 300 * float(np.finfo(np.float32).eps)


def memory(row: dict) -> float:
    """Bytes of the arguments, the outputs and the scratch space of a gradient."""
    return row["argument_bytes"] + row["output_bytes"] + row["scratch_bytes"]


def fits(
    rows: list[dict], activations: list[dict], growth: list[dict], *, asymptotic: int
) -> list[dict]:
    """Exponents of time and memory along every scan, with 95 % intervals.

    Args:
        rows: Every network, in every scan.
        activations: Of this library and another, at every number of heads that is fitted.
        growth: Seconds of this library at those, taken in turns.
        asymptotic: Heads from which on exponents are fitted.
    """
    found = []
    for scan in SCANS:
        for library in COLORS:
            points = [row for row in rows if (row["scan"], row["library"]) == (scan, library)]
            grown = [each for each in activations if (scan, each["library"]) == ("heads", library)]
            if scan == "heads":
                points = [row for row in points if row["heads"] >= asymptotic]
            for quantity in QUANTITIES:
                chosen = grown if quantity == "activations" else points
                if (scan, library) == ("heads", OURS) and quantity in TIMES:
                    chosen = growth
                x = [each[scan] for each in chosen]
                y = [_quantity(each, quantity) for each in chosen]
                if len(y) >= LEAST_POINTS and np.all(np.isfinite(y)) and min(y) > 0:
                    fit = rates.log_log_slope(x, y)._asdict()
                    found.append({"scan": scan, "library": library, "quantity": quantity, **fit})
    return found


def flow_fit(flows: list[dict]) -> list[dict]:
    """The exponent in heads of a flow's seconds per gradient, where there are enough of them."""
    if len(flows) < LEAST_POINTS:
        return []
    seconds = [each["seconds"] / each["gradients"] for each in flows]
    fit = rates.log_log_slope([each["heads"] for each in flows], seconds)._asdict()
    return [{"scan": "heads", "library": OURS, "quantity": "flow", **fit}]


def _quantity(row: dict, quantity: str) -> float:
    if quantity == "memory":
        return memory(row)
    return row["bytes" if quantity == "activations" else quantity]


def numbers(results: dict) -> list[dict]:
    """What the issue asks for and what was measured."""
    widest = max(row["heads"] for row in results["rows"] if row["scan"] == "heads")
    at_widest = {
        row["library"]: memory(row)
        for row in results["rows"]
        if (row["scan"], row["heads"]) == ("heads", widest)
    }
    # A NaN must come through, which max() would lose.
    apart = float(np.max([row["error"] for row in results["rows"] if not row["left_out"]]))
    share = at_widest[OURS] / at_widest[LINEN]
    found = [_number(f"memory at {widest} heads over flax.linen's", share, LARGEST_SHARE)]
    what = f"largest difference of outputs and gradients from {LINEN}'s"
    found.append(_number(what, apart, ROUND_OFF))
    own = {
        fit["quantity"]: fit
        for fit in results["fits"]
        if (fit["scan"], fit["library"]) == ("heads", OURS)
    }
    for quantity in TIMES:
        fit, what = own[quantity], f"exponent of {QUANTITIES[quantity]} in heads"
        entry = _number(what, fit["slope"], TIME_EXPONENT, note=_interval(fit))
        met = bool(abs(fit["slope"] - TIME_EXPONENT) <= EXPONENT_ERROR)
        found.append(entry | {"asked": f"{TIME_EXPONENT} ± {EXPONENT_ERROR}", "met": met})
    what = "exponent of activation memory in heads"
    if "activations" in own:
        fit = own["activations"]
        found.append(_number(what, fit["slope"], ACTIVATION_EXPONENT, note=_interval(fit)))
    else:
        found.append(_number(what, np.nan, ACTIVATION_EXPONENT, note="more samples add none"))
    for each in results["seeds"]:
        what = f"{each['seeds']} seeds in one program over one seed, both on {each['devices']} "
        what += f"virtual devices, {each['heads']} heads"
        # All on several devices over one seed on one would count the gain of the devices, too.
        note = f"of processor time {each['processor_ratio']:.2f}; both on one device "
        note += f"{each['alone']:.2f}; over one seed on one device {each['mixed']:.2f}; with no "
        note += f"core idle and no work saved {each['floor']:.2f}"
        found.append(_number(what, each["spread"], LARGEST_SEEDS, note=note))
    for spread in results["devices"]:
        found += _of_devices(spread)
    return found


def _of_devices(spread: dict) -> list[dict]:
    where, found = f"{spread['devices']} virtual devices, {spread['heads']} heads: ", []
    for what, words in (("", ""), ("flow ", "a flow's ")):
        work, note = (
            spread[f"{what}processor_seconds"],
            f"of wall time {spread[f'{what}seconds']:.2f}",
        )
        found.append(
            _number(f"{where}{words}processor time over one's", work, LARGEST_WORK, note=note)
        )
        apart = spread[f"{what}apart"]
        found.append(_number(f"{where}{words}largest difference", apart, ROUND_OFF))
    return found


def _number(what: str, value: float, most: float, *, note: str = "") -> dict:
    return {
        "what": what, "asked": f"≤ {most:.3g}", "measured": f"{value:.3g}", "value": value,
        "note": note, "met": bool(value <= most),
    }  # fmt: skip


def _interval(fit: dict) -> str:
    return f"95 % interval {fit['low']:.3f} to {fit['high']:.3f}, {fit['points']} points"
