"""Costs at given errors, and the page of the relatives benchmark.

    cost at an error = that of the work-precision curve, between its two runs about that error

One trap: between runs the curve is taken for a power law; two methods within a tenth are equal.
"""

from typing import Any

import numpy as np

from benchmarks import integrator_page
from meanfield.report import table

GOALS = (0.01, 0.001)
# Less than this is what runs of one method at neighbouring tolerances differ by.
BETTER = 1.3
COLORS = {
    "RKC2": "#D55E00", "RKL2": "#222222", "ROCK4": "#999999", "ROCK4, damped": "#56B4E9",
    "Krylov 2": "#009E73", "Krylov 3": "#CC79A7", "Krylov + RKC2": "#0072B2",
    "deflation 1": "#E69F00", "deflation 4": "#7B3294", "deflation 8": "#8C6D31",
    "deflation 4, free": "#66A61E",
}  # fmt: skip


def cost_at(runs: list[dict], cost: str, goal: float, /) -> float:
    """Cost at an error, on the curve of the cheapest runs; nan if no run is as precise."""
    front: list[tuple[float, float]] = []
    for run in sorted((r for r in runs if not r["stopped"]), key=lambda r: (r[cost], r["error"])):
        if not front or run["error"] < front[-1][0]:
            front.append((run["error"], run[cost]))
    if not front or front[-1][0] > goal:
        return float("nan")
    errors, costs = np.log(np.array(front[::-1])).T
    # At its loosest tolerance a method may be more precise than asked; it is charged that run.
    return float(np.exp(np.interp(np.log(goal), errors, costs)))


def costs(results: dict, /) -> list[dict]:
    """Cost of each method at each goal on each problem, and how many times that RKC2 costs."""
    rows, found = results["rows"], []
    for reference in results["references"]:
        name = reference["problem"]
        for goal in GOALS:
            for cost in ("gradients", "seconds"):
                value = {
                    method: cost_at(
                        [r for r in rows if (r["problem"], r["method"]) == (name, method)],
                        cost, goal,
                    )
                    for method in dict.fromkeys(r["method"] for r in rows)
                }  # fmt: skip
                found += [
                    {
                        "problem": name, "goal": goal, "cost": cost, "method": method,
                        "value": value[method], "gain": value["RKC2"] / value[method],
                    }
                    for method in value
                ]  # fmt: skip
    return found


def page(results: dict, config: Any) -> str:
    """The text of ``report.md``."""
    sections = [
        "# Relatives of RKC2: work against precision",
        "All methods integrate dθ/dτ = −s ∇Q(θ) in double precision from one start, with rtol as "
        f"listed, atol = {config.atol_ratio:g} rtol, one first step and one PID controller. Costs "
        "are evaluations of the gradient, rejected steps and the search for radii, eigenvectors "
        "and Krylov spaces included; a Jacobian product is a difference of gradients, and costs "
        "one (an exact one would cost two). A method that has spent "
        f"{config.method_gradients:,} gradients on one problem "
        f"({config.least_squares_gradients:,} on least squares) skips its remaining tolerances. "
        "'deflation 4, free' is not charged for its eigenvectors, which no method can have for "
        "nothing: it bounds what deflation by four could gain.",
        "## Does a relative beat RKC2?",
        verdict(results),
        "## Cost of RKC2 over that of the method",
        "Above 1 the method is cheaper than RKC2. In brackets its gradients or seconds.",
        *(_gains(results, goal, cost) for cost in ("gradients", "seconds") for goal in GOALS),
        "![Error against cost](work_precision.png)",
        "## The problems",
        integrator_page.references(results["references"]),
        "## Every run",
        integrator_page.runs(results["rows"]),
    ]
    return "\n\n".join(sections)


def verdict(results: dict, /) -> str:
    """Whether a relative is cheaper by a factor that would make it the default."""
    means = mean_gains(results)
    winners = [method for method, gain in means.items() if gain >= BETTER]
    best = max(means, key=means.__getitem__, default=None)
    rule = (
        f"A relative that reaches {100 * GOALS[0]:g} % on every problem with {BETTER:g} times "
        "fewer gradients than RKC2, in geometric mean over the problems, would take its place"
    )
    if winners:
        found = f"**{', '.join(winners)}** would."
    elif best is None:
        found = "none reaches that error on every problem."
    else:
        found = f"none does; the nearest is {best} with {means[best]:.2f}."
    single = [
        c for c in results["costs"]
        if (c["goal"], c["cost"]) == (GOALS[0], "gradients") and c["gain"] >= BETTER
        and "free" not in c["method"]
    ]  # fmt: skip
    ahead = "; ".join(
        f"{c['method']} on {c['problem']}: {c['gain']:.2f} in gradients, "
        f"{_gain(results, c, 'seconds'):.2f} in seconds"
        for c in single
    )
    return f"{rule}: {found}" + (f" On single problems ahead by as much: {ahead}." if ahead else "")


def mean_gains(results: dict, /) -> dict[str, float]:
    """Geometric mean over problems of the gain in gradients, of methods that solve all of them."""
    found = {}
    for method in dict.fromkeys(c["method"] for c in results["costs"]):
        gains = [
            c["gain"] for c in results["costs"]
            if (c["goal"], c["cost"], c["method"]) == (GOALS[0], "gradients", method)
        ]  # fmt: skip
        if method != "RKC2" and "free" not in method and np.isfinite(gains).all():
            found[method] = float(np.exp(np.mean(np.log(gains))))
    return found


def _gain(results: dict, like: dict, cost: str) -> float:
    wanted = (like["goal"], like["problem"], like["method"], cost)
    return next(
        c["gain"] for c in results["costs"]
        if (c["goal"], c["problem"], c["method"], c["cost"]) == wanted
    )  # fmt: skip


def _gains(results: dict, goal: float, cost: str) -> str:
    chosen = [c for c in results["costs"] if (c["goal"], c["cost"]) == (goal, cost)]
    problems = list(dict.fromkeys(c["problem"] for c in chosen))
    lines = []
    for method in dict.fromkeys(c["method"] for c in chosen):
        of = {c["problem"]: c for c in chosen if c["method"] == method}
        lines.append([method, *(_entry(of[problem]) for problem in problems)])
    return f"**{cost} to an error of {100 * goal:g} %**\n\n" + table(["method", *problems], lines)


def _entry(found: dict) -> str:
    if np.isnan(found["value"]):
        return "not reached"
    gain = "RKC2: not reached" if np.isnan(found["gain"]) else f"{found['gain']:.2f}"
    return f"{gain} ({found['value']:.3g})"


def summary(results: dict) -> str:
    """A few lines for the terminal: who is cheapest, and by how much."""
    lines = [verdict(results)]
    for goal in GOALS:
        for problem in dict.fromkeys(c["problem"] for c in results["costs"]):
            chosen = [
                c for c in results["costs"]
                if (c["problem"], c["goal"], c["cost"]) == (problem, goal, "gradients")
                and np.isfinite(c["gain"]) and "free" not in c["method"]
            ]  # fmt: skip
            if chosen:
                best = max(chosen, key=lambda c: c["gain"])
                lines.append(
                    f"{problem} to {100 * goal:g} %: {best['method']}, {best['value']:.3g} "
                    f"gradients, {best['gain']:.2f}x fewer than RKC2"
                )
    return "\n".join(lines)
