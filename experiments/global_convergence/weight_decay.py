r"""The risk at the end of the flow against weight decay, lambda -> 0, with a certificate.

At a stationary measure g_t(theta_2) = -lambda theta_1 on the support; if the support covers the
directions of theta_2 at one depth, then R = O(lambda) (Gao et al. 2024; the computable form of
their "for small lambda the flow reaches R <= epsilon"). So the flow is run from the same particles
for a ladder of lambda, 0 included, until it is stationary or its horizon is over, and

    R(lambda) ~ a lambda^p

is fitted where every seed was stationary. R = O(lambda) asks for p >= 1.

One trap: the flow needs times of order 1/lambda. A run that stops for lack of time says nothing
about lambda; it is marked, drawn hollow and left out of the fit.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al., *On the global convergence of gradient descent
    for multi-layer ResNets in the mean-field regime*.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.global_convergence import decay_ends, decay_problems
from experiments.global_convergence import weight_decay_facts as decay_facts
from experiments.global_convergence import weight_decay_report as decay_report
from experiments.global_convergence.decay_problems import Problem
from meanfield import checks, flow, nn
from meanfield.kept import NOTHING, Kept

SUMMARY = "Risk at the end of the flow against weight decay, with a certificate (Gao, theorem)."

# Risks of 1e-8 are differences of labels of size 1: single precision has no such digits.
jax.config.update("jax_enable_x64", True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A ladder of weight decays, 0 added below it, on two problems."""

    decays: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    """Constants lambda, decreasing and positive."""
    seeds: int = 4
    """Independent draws of the particles; all lambda of a seed start from the same."""
    settled: float = 1e-3
    """A run is stationary when the energy falls by at most this part of itself in time 1/lambda."""
    horizon: float = 60.0
    """Length of the flow in units of 1/lambda; at lambda = 0 of the smallest other one."""
    saves: int = 40
    """Times at which the risk is saved."""
    rtol: float = 3e-3
    """Relative tolerance of a step."""
    atol: float = 3e-4
    """Absolute tolerance of a step."""
    max_steps: int = 20_000
    """Steps after which a run gives up."""
    neurons: int = 256
    """Particles of the convex problem."""
    points: int = 12
    """Samples of the convex problem."""
    spread: float = 1.5
    """Standard deviation of the initial neurons of the convex problem."""
    heads: int = 16
    """Heads and neurons per half-step of the Transformer."""
    depth: int = 2
    """Layers of the Transformer."""
    prompts: int = 24
    """Training prompts of in-context regression."""
    context: int = 5
    """Examples in each prompt."""
    dim: int = 2
    """Dimension of the covariates."""
    kappa: float = 2.0
    """Constant before each half-step of the Transformer."""
    restarts: int = 32
    """Random starts of the certificate's search, per block and depth."""
    steps: int = 100
    """Descent steps of each start."""
    evaluations: int = 400_000
    """Evaluations of the first variation that the rigorous gap may take."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("max_steps", "neurons", "points", "heads", "depth", "prompts", "context"):
            checks.count(name, getattr(self, name))
        for name in ("dim", "restarts", "steps", "evaluations"):
            checks.count(name, getattr(self, name))
        for name in ("settled", "horizon", "rtol", "atol", "spread", "kappa"):
            checks.positive(name, getattr(self, name))
        checks.count("saves", self.saves, least=4)
        checks.count("seeds", self.seeds, least=2)
        for decay in self.decays:
            checks.positive("decays", decay)
        if len(self.decays) < 3 or np.any(np.diff(self.decays) >= 0):
            raise ValueError(
                f"decays must be three or more decreasing numbers, got {self.decays}: a slope "
                "needs three; 0 is added by itself"
            )


PRESETS = {
    "tiny": Config(
        decays=(0.3, 0.1, 0.03), seeds=2, horizon=40.0, saves=6, neurons=16, points=6, heads=4,
        depth=2, prompts=6, context=3, restarts=4, steps=10, evaluations=20_000,
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool, kept: Kept = NOTHING) -> Outcome:
    """Runs both problems down the ladder from every seed, certifies, draws and reports."""
    problems = [
        decay_problems.neurons(samples=config.points, width=config.neurons, spread=config.spread),
        decay_problems.transformer(
            samples=config.prompts,
            context=config.context,
            dim=config.dim,
            depth=config.depth,
            width=config.heads,
            kappa=config.kappa,
        ),
    ]
    # The smallest take longest, and come first; 0 at the end of the ladder is no exception.
    decays = (*config.decays, 0.0)
    items = [(p, decay, seed) for decay in decays[::-1] for p in problems[::-1]
             for seed in range(config.seeds)]  # fmt: skip
    rows = side_by_side(
        lambda item: _trained(config, kept, *item, progress=progress),
        items,
        keep=kept.members("run"),
        label="runs" if progress else None,
    )
    found = {(p.name, decay, seed): row for (p, decay, seed), row in zip(items, rows, strict=True)}
    arrays: dict[str, Any] = {"decays": np.array(decays)}
    for problem in problems:
        named = [[found[problem.name, decay, s] for s in range(config.seeds)] for decay in decays]
        arrays[problem.name] = {
            key: np.array([[row[key] for row in line] for line in named]) for key in rows[0]
        }
    facts = decay_facts.facts(arrays)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=decay_report.report(arrays, facts, config),
        summary=decay_report.summary(facts),
        data_checksums={},
        seeds=list(range(1, config.seeds + 1)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    decay_report.draw(arrays, decay_facts.facts(arrays), out_dir)


def _trained(
    config: Config, kept: Kept, problem: Problem, decay: float, seed: int, *, progress: bool
) -> dict[str, Any]:
    """One run from its particles to its end, and what is measured there."""
    rate = decay or config.decays[-1]
    field = flow.gradient_field(problem.energy(decay), problem.model.time_scales)
    particles = problem.model.network.init(jax.random.key(seed + 1), width=problem.width)
    length = config.horizon / rate
    ts = np.concatenate([[0.0], np.geomspace(1.0, length, config.saves - 1)])
    label = f"{problem.name}, lambda {decay:g}, seed {seed}"
    record = flow.gradient_flow(
        field,
        nn.Theta((), particles, ()),
        ts,
        rtol=config.rtol,
        atol=config.atol,
        observe=problem.risk,
        stop=flow.stationary(field, config.settled * rate),
        max_steps=config.max_steps,
        balance_bound=0.05,
        progress=label if progress else None,
        # Two lambda may look alike in a label.
        checkpoint=kept.checkpoints(f"{problem.name}, {decay!r}, seed {seed}"),
    )
    effort = config.restarts, config.steps, config.evaluations
    measured = decay_ends.ends(problem, record.theta, decay=decay, rate=rate, effort=effort)
    missing = np.full(len(ts) - len(record.times), np.nan)
    return measured | {
        "times": ts,
        "curve": np.concatenate([record.observables, missing]),
        "result": record.result,
        "message": record.message,
        "end_time": record.end_time,
        "gradients": record.statistics["gradients"],
        "balance": record.worst_balance,
    }
