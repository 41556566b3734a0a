"""The page of the integrators benchmark: what was asked, what was measured, every run.

One trap: a run that stopped early has an error too, that of the state it reached; the page says
which runs those are.
"""

from typing import Any

import numpy as np

from benchmarks.integrator_report import COLORS, WORDS, cheapest, ratio
from meanfield.report import table


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    sections = [
        "# Integrators of gradient flows: work against precision",
        _setting(config),
        "## Asked and measured",
        _numbers(results),
        "![Error against cost](work_precision.png)\n\n*Relative error of θ at the end of the flow "
        "against cost. Crosses: runs that stopped early, at the error of the state they reached. "
        "Dashed: the 1 % at which costs are compared.*",
        "## The problems",
        references(results["references"]),
        "## Cheapest run of each method with a final error of at most 1 %",
        *(_best(results["rows"], r) for r in results["references"]),
        "## Is what RKC2 computed the gradient flow?",
        _balance(results["rows"]),
        "## Every run",
        runs(results["rows"]),
    ]
    return "\n\n".join(sections)


def _setting(config: Any) -> str:
    return (
        "All methods integrate dθ/dτ = −s ∇Q(θ) in double precision from one start. The adaptive "
        f"ones have rtol as listed and atol = {config.atol_ratio:g} rtol, under one PID controller "
        "of diffrax; Euler and RK4 have fixed steps, as listed, in units of 1/sharpness: for "
        "Euler the largest sharpness met by a pilot solve, which its user would not know; RK4 "
        "estimates it anew every ten steps by warm-started power iteration. `gradient_flow` is "
        "RKC2 with the dissipated energy integrated and controlled beside θ.\n\n"
        "Costs are gradients, a Hessian product counting as two. Rejected steps and the "
        "estimation of spectral radii are counted; the products of RKC2 are differences of "
        "gradients, and count as such. diffrax's adaptive methods start with the first step of "
        "`gradient_flow`, for which each is charged one gradient. "
        "For diffrax's explicit methods the count follows from the numbers of accepted and "
        "rejected steps; RKC2 and RK4 count in the program; LSODA and BDF count calls, finite "
        "differences for their dense Jacobian included; Kvaerno5 runs a second time with callbacks "
        "in its field that count evaluations, Jacobian products of GMRES and the evaluation under "
        "each linearisation. "
        "Seconds are the best of up to "
        f"{1 + config.repeats} runs of the compiled program; compilation is listed apart. A solve "
        f"may spend {config.max_gradients:,} gradients ({config.least_squares_gradients:,} on "
        f"least squares), Kvaerno5, LSODA and BDF also {config.seconds:g} s; a method that has "
        f"spent {config.method_seconds:g} s on one problem skips its remaining tolerances."
    )


def _numbers(results: dict) -> str:
    rows = [
        [n["what"], n["asked"], n["measured"], _word(met=n["met"]), n["note"]]
        for n in results["numbers"]
    ]
    header = ["number", "asked", "measured", "", "which"]
    others = []
    for reference in results["references"]:
        name = reference["problem"]
        for cost in ("gradients", "seconds"):
            for ours, but, what in (
                ("gradient_flow", (), "of `gradient_flow`, to the best peer"),
                ("RKC2", ("Euler",), "of RKC2, to the best peer that finds its own steps"),
            ):
                one = ratio(results["rows"], name, cost, ours=ours, but=but)
                if np.isfinite(one.value):
                    sign = "≥ " if one.bound else ""
                    others.append([name, f"{cost} {what}", f"{sign}{one.value:.3g}x", one.peer])
    more = table(["problem", "ratio", "measured", "peer"], others)
    return table(header, rows) + "\n\nFurther ratios, not asked for:\n\n" + more


def _word(*, met: bool | None) -> str:
    return WORDS[met] if met else f"**{WORDS[met]}**"


def references(found: list[dict]) -> str:
    """The table of problems and what their errors are measured against."""
    rows = [
        [
            r["title"], r["parameters"], f"{r['horizon']:.4g}", f"{r['sharpness']:.4g}",
            f"{r['stiffness']:.3g}", f"{r['peak']:.4g}", r["how"],
            f"{r['agreement']:.1e} ({r['other']})",
        ]
        for r in found
    ]  # fmt: skip
    header = ["problem", "parameters", "horizon τ", "sharpness λ at τ", "λτ", "peak sharpness",
              "reference", "distance of an independent method"]  # fmt: skip
    return table(header, rows)


def _best(rows: list[dict], reference: dict) -> str:
    lines = []
    for method in COLORS:
        run = cheapest(rows, reference["problem"], method, "gradients")
        fast = cheapest(rows, reference["problem"], method, "seconds")
        tried = [r for r in rows if (r["problem"], r["method"]) == (reference["problem"], method)]
        if run and fast:
            lines.append([
                method, f"{run['setting']:g}", f"{run['gradients']:,}", f"{run['evaluations']:,}",
                f"{run['products']:,}", f"{fast['seconds']:.3g}", f"{run['compile_seconds']:.2g}",
                f"{100 * run['error']:.2g} %", f"{100 * run['prediction_error']:.2g} %",
                f"{100 * run['sharpness_error']:.2g} %",
            ])  # fmt: skip
        elif tried:
            why = min(tried, key=lambda r: r["error"])
            stop = why["stopped"] or f"least error {100 * why['error']:.2g} %"
            lines.append([method, "none", f"did not: {stop}", *[""] * 7])
    header = ["method", "setting", "gradients", "evaluations", "products", "seconds",
              "compile s", "error of θ", "of predictions", "of sharpness"]  # fmt: skip
    return f"**{reference['title']}**\n\n" + table(header, lines)


def _balance(rows: list[dict]) -> str:
    chosen = [r for r in rows if np.isfinite(r["residual"])]
    lines = [
        [r["problem"], f"{r['setting']:g}", f"{100 * r['residual']:.2g} %",
         f"{100 * r['error']:.2g} %", f"{100 * r['risk_error']:.2g} %"]
        for r in chosen
    ]  # fmt: skip
    header = ["problem", "rtol", "energy-balance residual", "error of θ", "error of the energy"]
    return table(header, lines)


def runs(rows: list[dict]) -> str:
    """The table of all runs."""
    lines = [
        [
            r["problem"], r["method"], f"{r['setting']:g}", f"{r['error']:.2e}", r["gradients"],
            r["products"], r["accepted"], r["rejected"], f"{r['seconds']:.3g}",
            f"{r['first_seconds']:.3g}", f"{r['compile_seconds']:.2g}", f"{r['sharpness']:.4g}",
            f"{r['stopped']} at τ = {r['reached']:.3g}" if r["stopped"] else "",
        ]
        for r in rows
    ]  # fmt: skip
    header = ["problem", "method", "setting", "error", "gradients", "products", "accepted",
              "rejected", "seconds", "first run", "compile", "sharpness", "stopped"]  # fmt: skip
    return table(header, lines)
