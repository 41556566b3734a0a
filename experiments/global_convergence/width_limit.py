r"""The limit of infinite width: how fast trained networks approach it, and the limit itself.

    sup_tau |f_M(tau) - f_oo(tau)| ~ M^{-1/2},        E R_M = R_oo + c_1/M + ...

In-context regression is trained at several widths, with heads that are nested (the first of one
wide network) and with heads drawn anew. From the nested networks the limit is extrapolated, with
its error bar; the same is done for a linear network, whose limit is known.

One trap: means over seeds converge to the mean of finite networks, which is not the limit: more
seeds at one width never remove c_1/M.

References:
    Gao et al. 2024, arXiv 2410.23610; Saxe, McClelland and Ganguli, arXiv 1312.6120.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import numpy as np

from experiments._cli import Outcome
from experiments.global_convergence import (
    in_context,
    known_limit,
    width_limit_facts,
    width_limit_report,
)
from meanfield import checks, flow, measure
from meanfield.kept import NOTHING, Kept
from meanfield.measure import Trajectory

SUMMARY = "Width: errors against M, and the trained network of infinite width with its error bar."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """In-context regression and a linear network, at several widths."""

    widths: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Numbers of heads in each layer, each a divisor of the reference's."""
    together: int = 64
    """Widths up to this one, its divisors, share a program; each wider one compiles its own."""
    reference: int = 512
    """Heads in each layer of the wide networks that all are compared with."""
    seeds: int = 32
    """Networks of each width, nested and drawn anew."""
    depth: int = 2
    """Layers."""
    tolerance: float = 0.05
    """Error of a prediction, in standard deviations of a label, that a user would accept."""
    prompts: int = 6
    """Training prompts."""
    probes: int = 12
    """Further prompts, at which predictions are compared."""
    context: int = 3
    """Labelled examples in a prompt."""
    kappa: float = 1.0
    """Constant before each layer."""
    mean: float = 0.3
    """Mean of the entries of a head at the start."""
    gain: float = 0.5
    """Square root of their variance times the fan-in."""
    weight_decay: float = 1e-2
    """Constant lambda of the decay."""
    horizon: float = 1.25
    """Length of the flow, in mean-field time."""
    saves: int = 7
    """Times at which networks are compared, both ends included."""
    projections: int = 16
    """Directions of the sliced Wasserstein distance."""
    rtol: float = 3e-3
    """Relative tolerance of a step."""
    atol: float = 3e-5
    """Absolute tolerance of a step."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("depth", "together", "prompts", "probes", "context", "projections"):
            checks.count(name, getattr(self, name))
        for name in ("tolerance", "horizon", "gain", "kappa", "rtol", "atol"):
            checks.positive(name, getattr(self, name))
        checks.finite("mean", self.mean)
        checks.non_negative("weight_decay", self.weight_decay)
        checks.count("saves", self.saves, least=3)
        in_context.check_increasing("widths", self.widths, least=3)
        checks.count("reference", self.reference, least=self.widths[-1] + 1)
        in_context.check_divides(self.widths, self.reference)
        in_context.check_divides([w for w in self.widths if w < self.together], self.together)
        # The covariance of w widths is learnt from w + 2 networks, a bootstrap from eight.
        checks.count("seeds", self.seeds, least=max(8, len(self.widths) + 2))


PRESETS = {
    "tiny": Config(
        widths=(2, 4, 8), together=16, reference=16, seeds=8, depth=1, prompts=3,
        probes=4, horizon=0.5, saves=3, projections=4,
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool, kept: Kept = NOTHING) -> Outcome:
    """Trains every width, extrapolates to the infinite one, measures, draws and reports."""
    problem = in_context.problem(
        prompts=config.prompts, probes=config.probes, context=config.context,
        weight_decay=config.weight_decay, kappa=config.kappa, gain=config.gain, mean=config.mean,
    )  # fmt: skip
    times = np.linspace(0.0, config.horizon, config.saves)
    options: Any = {"depths": [config.depth], "seeds": config.seeds, "batched": True}
    both = measure.side_by_side(problem.energy, problem.model.time_scales, problem.observe)
    balances: list[float] = []
    given: Any = {"config": config, "times": times, "kept": kept, "progress": progress}
    train = functools.partial(_training, balances=balances, **given)
    start = in_context.draw(problem.model, "independent")
    every = (*config.widths, config.reference)
    learner = train("nested", both, config.together)
    nested = measure.replicas(jax.random.key(1), start, learner, widths=every, **options)
    learner = train("drawn anew", both, config.together)
    options |= {"widths": config.widths}
    anew = measure.replicas(jax.random.key(2), start, learner, nested=False, **options)
    both = measure.side_by_side(
        known_limit.energy(config.weight_decay), known_limit.time_scale, known_limit.observe
    )
    learner = train("linear", both, config.reference)
    options |= {"depths": [1]}
    linear = measure.replicas(jax.random.key(3), known_limit.draw, learner, **options)
    arrays = {
        "widths": np.array(config.widths),
        "reference": np.array(config.reference),
        "times": times,
        "nested": _errors(nested, measure.own_reference(nested), config),
        "anew": _errors(anew, measure.mean_reference(nested), config),
        "trained": _trained(nested),
        "linear": _trained(linear) | known_limit.exact(times, config.weight_decay),
        "balance": np.array(balances),
    }
    facts = width_limit_facts.facts(arrays, tolerance=config.tolerance)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=width_limit_report.report(arrays, facts, config),
        summary=width_limit_report.summary(arrays, facts, config),
        data_checksums={},
        seeds=[1, 2, 3],
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    facts = width_limit_facts.facts(arrays, tolerance=config.tolerance)
    width_limit_report.draw(arrays, facts, config, out_dir)


def _training(
    name: str,
    both: measure.SideBySide,
    together: int,
    *,
    config: Config,
    times: np.ndarray,
    kept: Kept,
    balances: list[float],
    progress: bool,
) -> Callable[[Any], Trajectory]:
    """The gradient flow of replicas [s l m ...], whose energy balances are noted."""
    field = flow.gradient_field(both.energy, both.time_scales)

    def flowed(thetas: Any, width: int, label: str) -> tuple[Trajectory, float]:
        common = max(width, together)
        record = flow.gradient_flow(
            field,
            # One program for many widths: compiling takes longer than training narrow ones wide.
            in_context.repeated(thetas, common),
            times,
            # Not stiff at these sizes, and cheaper to compile than the stabilised solver.
            solver=diffrax.Heun(),
            rtol=config.rtol,
            atol=config.atol,
            observe=both.observe,
            progress=label if progress else None,
            checkpoint=kept.checkpoints(label),
        )
        if record.result != "completed":
            raise ValueError(f"every flow must reach the horizon, {label}: {record.message}")
        seen: Trajectory = record.observables
        if seen.clouds is not None:
            seen = seen._replace(clouds=np.asarray(seen.clouds)[..., :: common // width, :])
        return seen, float(record.worst_balance)

    def train(thetas: Any) -> Trajectory:
        width = jax.tree.leaves(thetas)[0].shape[2]
        label = f"{width} heads, {name}"
        seen, balance = kept.member(label, lambda: flowed(thetas, width, label))
        balances.append(balance)
        return seen

    return train


def _errors(
    runs: measure.Replicas, reference: measure.Reference, config: Config
) -> dict[str, np.ndarray]:
    """Errors [s w] of predictions, risk and head law, sup over training, and what they are of."""
    distance = functools.partial(
        measure.sliced_wasserstein, jax.random.key(0), p=1, projections=config.projections
    )
    errors = measure.sup_errors(runs, reference, distance=distance)
    return {
        "predictions": errors.predictions,
        "risk": errors.risk,
        "heads": np.asarray(errors.heads),
        "effective_widths": errors.effective_widths,
        "reference": np.array(errors.reference[0]),
    }


def _trained(runs: measure.Replicas) -> dict[str, np.ndarray]:
    """Risk [s w t] and predictions [s w t q] over training, the reference last."""
    values, _ = measure.over_widths(runs)
    return {"risk": np.asarray(values.risk), "predictions": np.asarray(values.predictions)}
