"""Figures, animation and report of ``pde``, from its record and the facts fitted to it.

One trap: nothing is decided here; what a sentence says comes from ``pde_facts``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.global_convergence import pde_facts, verdicts
from experiments.global_convergence.pde_facts import Facts
from meanfield import plots

DENSITY = "density $\\rho_t$"
CLAIM = (
    "As M → ∞ the particles of every half-step follow the Wasserstein gradient flow "
    "∂ρ_t/∂τ = ∇·(ρ_t ∇ δQ/δρ), one density per depth, and what M of them compute misses the limit "
    "by O(1/√M) (Gao et al. 2024, eq. (9))."
)
PARTICLES, BLUE, INK = "#d1495b", "#31688e", "#222222"
AXES = {"heads": ("query·key product a", "value v"), "neurons": ("weight in u", "weight out w")}


def draw(arrays: dict[str, Any], facts: Facts, out_dir: Path) -> None:
    """Writes the figures and the animation."""
    _draw_densities(arrays, out_dir / "densities.png")
    _draw_rates(arrays, facts, out_dir / "rates.png")
    _draw_equation(arrays, facts, out_dir / "equation.png")
    plots.save_animation(_frames(arrays), out_dir / "flow.gif")


def _rows(arrays: dict[str, Any]) -> list[tuple[str, str]]:
    """What each row holds, and at which depth."""
    depth = int(arrays["depth"])
    return [
        (kind, f"depth {layer / depth:.2g}" if layer else "depth 0")
        for layer in range(depth)
        for kind in AXES
    ]


def _draw_densities(arrays: dict[str, Any], path: Path) -> None:
    density, times = arrays["density"], arrays["times"]
    shown = np.unique(np.linspace(0, len(times) - 1, 4).round().astype(int))
    rows, edges = _rows(arrays), (arrays["edges"],) * 2
    figure, axes = plots.panels(
        rows=len(rows), columns=len(shown), width=2.5, height=2.4, share=False
    )
    maps = [density[time][row] for row in range(len(rows)) for time in shown]
    titles = [f"τ = {times[time]:.3g}" for time in shown] + [""] * (len(maps) - len(shown))
    plots.draw_densities(axes, maps, edges, titles=titles, label=DENSITY)
    for row, (kind, depth) in enumerate(rows):
        panels = axes[row * len(shown) : (row + 1) * len(shown)]
        across, up = AXES[kind]
        panels[0].set_ylabel(f"{kind}, {depth}\n{up}")
        for ax in panels:
            ax.set_xlabel(across)
    plots.save_figure(figure, path)


def _frames(arrays: dict[str, Any]) -> Iterator[Any]:
    rows, edges = _rows(arrays), (arrays["edges"],) * 2
    ceiling = float(arrays["density"].max())
    for time, maps, clouds in zip(arrays["times"], arrays["density"], arrays["shown"], strict=True):
        figure, axes = plots.panels(columns=len(rows), width=2.4, height=2.6)
        titles = [f"{kind}, {depth}" for kind, depth in rows]
        plots.draw_densities(axes, list(maps), edges, titles=titles, ceiling=ceiling, label=DENSITY)
        plots.draw_clouds(axes, list(clouds), titles=titles, color=PARTICLES, size=5.0)
        for ax, (kind, _) in zip(axes, rows, strict=True):
            across, up = AXES[kind]
            ax.set(xlabel=across, ylabel=up, xlim=edges[0][[0, -1]], ylim=edges[0][[0, -1]])
        figure.suptitle(f"τ = {time:.2f}", fontsize=10)
        yield figure


def _draw_rates(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    figure, axes = plots.panels(rows=2, columns=2, width=4.6, height=3.5)
    widths, errors = arrays["widths"], arrays["errors"]
    for ax, name in zip(axes, pde_facts.AVERAGES, strict=False):
        plots.draw_rate(ax, widths, errors[name], facts.slopes[name], expected=-0.5)
    for name, said, color in (("draws", "draws", INK), ("plane", "particles", BLUE)):
        plots.draw_rate(axes[3], widths, errors[name], facts.slopes[name], name=said, color=color)
    labels = [f"{said[0].upper()}{said[1:]}" for said in pde_facts.AVERAGES.values()]
    for ax, label in zip(axes, [*labels, "W₂ in the plane to draws, at the end"], strict=True):
        ax.set(xlabel="particles M per half-step", ylabel=label)
        plots.draw_legend(ax, beside=False)
    plots.save_figure(figure, path)


def _draw_equation(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    figure, (energy, balance, order) = plots.panels(columns=3, width=4.3, height=3.4)
    times = arrays["times"]
    # A record has names in the order of the alphabet: M = 512 before M = 8.
    energies = {width: arrays["energies"][width] for width in sorted(arrays["energies"], key=int)}
    for (width, values), color in zip(
        energies.items(), plots.sequential_colors(len(energies)), strict=True
    ):
        plots.draw_curves(energy, times, values, label=f"M = {width}", color=color)
    plots.draw_curves(
        energy, times, arrays["energy"][None], label="density on the grid", color=PARTICLES
    )
    energy.lines[-1].set_linestyle("--")
    energy.set(xlabel="mean-field time τ", ylabel="energy Q")
    plots.draw_legend(energy, beside=False)
    lost, dissipated = arrays["energy"][0] - arrays["energy"], arrays["dissipated"]
    for row, (kind, depth) in enumerate(_rows(arrays)):
        color = plots.sequential_colors(len(dissipated[0]))[row]
        share = dissipated[:, row] / arrays["depth"]
        plots.draw_curves(balance, times, share[None], label=f"{kind}, {depth}", color=color)
    total = dissipated.sum(axis=1) / arrays["depth"]
    plots.draw_curves(balance, times, total[None], label="dissipation, all", color=INK)
    balance.plot(times, lost, "o", ms=3.5, color=PARTICLES, label="energy lost")
    balance.set(xlabel="mean-field time τ", ylabel="energy lost since τ = 0")
    plots.draw_legend(balance, beside=False)
    fit = facts.order
    plots.draw_rate(
        order, arrays["cells"], arrays["gaps"][None], _against_cells(fit), expected=-1.0,
        because="asked for", name="halving the cells",
    )  # fmt: skip
    order.set(xlabel="cells per axis", ylabel="L¹ distance to twice as many")
    plots.draw_legend(order, beside=False)
    plots.save_figure(figure, path)


def _against_cells(fit: Any) -> Any:
    """The fit in the number of cells, whose slope is minus that in their size."""
    return fit._replace(slope=-fit.slope, low=-fit.high, high=-fit.low)


def report(arrays: dict[str, Any], facts: Facts, config: Any, notes: list[str]) -> str:
    """The page report.md."""
    agrees, because = pde_facts.verdict(facts)
    return _report.page(
        "The Wasserstein gradient flow on a grid, against M particles",
        [
            _setting(config),
            "## The claim",
            _report.claim(CLAIM, agrees=agrees, because=because),
            _report.figure(
                "flow.gif",
                f"The density of every half-step (blue) and the {config.shown} particles of one "
                "network (red), drawn from it at τ = 0 and moved by their own energy since.",
            ),
            _report.figure("densities.png", "The densities on the finest grid, one colour scale."),
            "## Is this the equation?",
            verdicts.table(pde_facts.equation(facts)),
            _equation(facts, config),
            _report.figure(
                "equation.png",
                "Left: energy over time, of the density and of networks (lines: mean over seeds; "
                "bands: least to greatest). Middle: what it loses, and what each half-step "
                "dissipates. Right: refinement of the grid.",
            ),
            "## Do particles approach it?",
            verdicts.table(pde_facts.particles(facts)),
            _particles(arrays, facts, config),
            _report.figure(
                "rates.png",
                "Errors of M particles against the density, one point per seed. Last panel: W₂ in "
                "the plane of particles, and of independent draws, to draws of the density.",
            ),
            _notes(notes),
        ],
    )


def _setting(config: Any) -> str:
    return (
        f"Scalar tokens, {config.tokens} per sample, {config.samples} samples; depth "
        f"{config.depth}, each layer of a half-step of heads (query·key product a, value v) and "
        "one of neurons (weight in u, weight out w); square loss of the last token, weight decay "
        f"{config.weight_decay:g}. At τ = 0 every half-step has the same density, a bump on a "
        f"square of side {2 * config.radius:g}. The finest grid has {config.finest}² cells on "
        f"[−{config.half:g}, {config.half:g}]². Networks: {config.seeds} seeds of each width. An "
        f"exponent agrees if its whole 95 % interval lies within {verdicts.MARGIN:g} of the "
        "expected one, disagrees if the two are disjoint, and is open otherwise."
    )


def _equation(facts: Facts, config: Any) -> str:
    return (
        f"The scheme is of second order where the density is smooth; the order is that of the "
        f"distance between grids of n and 2n cells, n = {', '.join(map(str, config.cells))}, and "
        "its interval that of the residuals of the line. Halving the finest grid changes the "
        f"outputs by {facts.floor:.2g}: the floor of all that follows."
    )


def _particles(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    plane, draws = (verdicts.said(verdicts.of_slope(facts.slopes[n])) for n in ("plane", "draws"))
    last = float(arrays["errors"]["prediction"][:, -1].mean())
    widest, weak = config.widths[-1], f"{100 * facts.weak:.2g}"
    return (
        f"At M = {widest} predictions miss those of the density by {last:.2g} on average, "
        f"{last / max(facts.floor, 1e-300):.0f} times the floor. W₂ in the plane falls at slope "
        f"{plane}; draws of the density, for which there is nothing to converge but sampling, at "
        f"{draws}: this, and not −1/2, is the rate expected there. The particle runs solve "
        f"the continuity equation to {weak} % of the largest rate of change of their test "
        f"functions; {100 * facts.doctored:.2g} % if they were 3 % faster. Their energy balance "
        f"is off by at most {100 * facts.solver:.2g} %."
    )


def _notes(notes: list[str]) -> str:
    if not notes:
        return "No run had anything to warn of."
    return "## Warnings\n\n" + "\n".join(f"- {note}" for note in notes)


def summary(facts: Facts) -> str:
    """A few lines for the terminal."""
    agrees, because = pde_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    rate = verdicts.said(verdicts.of_slope(facts.slopes["prediction"]))
    order = verdicts.said(verdicts.of_slope(facts.order))
    return (
        f"This run {word} the limit on the grid: {because}\n"
        f"Predictions approach the density at slope {rate}; the grid is of order {order}."
    )
