"""Tables of ``linear_rate``: the ball test of every cell, and the smallest starts.

One trap: rates are medians over problems, and counts are sums; a cell whose test passes for half
its problems has both kinds in one row.
"""

from typing import Any

import numpy as np

from experiments import _report
from experiments.attention_kernels import linear_rate_facts


def cells(arrays: dict[str, Any]) -> str:
    """Ball test, bounds and observed rate of every cell."""
    listed = [(kernel, cell, "value") for kernel, cell in linear_rate_facts.cells(arrays)] + [
        (kernel, cell, start)
        for start in ("all", "sufficient")
        for kernel, cell in linear_rate_facts.together(arrays)
    ]
    words = {"value": "W^V", "all": "all, random", "sufficient": "all, in the ball"}
    rows = []
    for kernel, cell, trained in listed:
        run, seeds = cell[trained], len(cell[trained]["passes"])
        out = np.sum(np.isfinite(run["firsts"]), axis=0)
        observed = run["observed"][:, 0]
        seen = observed[np.isfinite(observed)]
        rows.append(
            [
                words[trained], kernel, *cell["size"].tolist(), f"{cell['ratio']:g}",
                f"{run['passes'].sum()} of {seeds}", f"{np.median(run['margin']):.2g}",
                f"{np.median(run['certified']):.2g}", f"{np.median(run['predicted']):.2g}",
                f"{np.median(seen):.2g}" if len(seen) else "none", *out.tolist(),
                int(run["excess"][run["passes"]].sum()),
            ]
        )  # fmt: skip
    head = [
        "trained", "kernel", "N", "D", "H", "HD/(Nn)", "ball test passes", "margin",
        "rate of the ball", "rate of the path", "rate observed", "left the ball", "path too long",
        "σ(B) below half", "above the bound",
    ]  # fmt: skip
    return (
        "Medians over problems; rates per step. Of the last four columns the first three count "
        "runs, whether their test passes or not, and the last iterates of runs whose test passes."
        "\n\n" + _report.table(head, rows)
    )


def starts(arrays: dict[str, Any], config: Any) -> str:
    """The smallest number of heads by N, D, scheme and kernel."""

    def said(heads: float, tried: float) -> str:
        return f"none up to {tried:.0f}" if np.isnan(heads) else f"{heads:.0f}"

    rows = []
    for name, (rank, ball, tried, best, gain) in arrays["starts"].items():
        samples, dim, scheme, kernel = name.split("; ")
        least = -(-int(samples) * config.tokens // int(dim))
        gains = "" if np.isnan(gain) else f"{gain:.3g}"
        row = [samples, dim, scheme, kernel, gains, least]
        rows.append([*row, said(rank, tried), said(ball, tried), f"{best:.3g}"])
    head = [
        "N", "D", "start", "kernel", "gain", "Nn/D", "smallest H of full rank",
        "smallest H in the ball", "best margin",
    ]  # fmt: skip
    return (
        f"n = {config.tokens}, one draw of the heads each, from H = Nn/D on. Silent starts have "
        "W^V = 0 and W^O orthonormal times a gain; where the gain is chosen, it is as large as the "
        "ball test asks.\n\n" + _report.table(head, rows)
    )
