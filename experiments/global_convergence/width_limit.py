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
import jax.numpy as jnp
import numpy as np

from experiments._cli import Outcome
from experiments.global_convergence import in_context, width_limit_facts, width_limit_report
from meanfield import checks, flow, measure, tasks
from meanfield.measure import Trajectory

SUMMARY = "Width: errors against M, and the trained network of infinite width with its error bar."
TARGET = np.array([1.0, -0.5])
COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])
LINEAR_PROBES = np.array([[1.0, 0.0], [0.5, -1.0]])
LINEAR_MEAN = np.array([0.5, 0.3, -0.2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """In-context regression and a linear network, at several widths."""

    widths: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Numbers of heads in each layer, increasing, each a divisor of the reference's."""
    reference: int = 512
    """Heads in each layer of the wide networks that all are compared with."""
    seeds: int = 16
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
    horizon: float = 2.0
    """Length of the flow, in mean-field time."""
    saves: int = 7
    """Times at which networks are compared, both ends included."""
    projections: int = 16
    """Directions of the sliced Wasserstein distance."""
    rtol: float = 1e-2
    """Relative tolerance of a step."""
    atol: float = 1e-4
    """Absolute tolerance of a step."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("depth", "prompts", "probes", "context", "projections"):
            checks.count(name, getattr(self, name))
        for name in ("tolerance", "horizon", "gain", "kappa", "rtol", "atol"):
            checks.positive(name, getattr(self, name))
        checks.finite("mean", self.mean)
        checks.non_negative("weight_decay", self.weight_decay)
        checks.count("saves", self.saves, least=3)
        in_context.check_increasing("widths", self.widths, least=3)
        checks.count("reference", self.reference, least=self.widths[-1] + 1)
        in_context.check_divides(self.widths, self.reference)
        # The covariance of w widths is learnt from w + 2 networks, a bootstrap from eight.
        checks.count("seeds", self.seeds, least=max(8, len(self.widths) + 2))


PRESETS = {
    "tiny": Config(
        widths=(2, 4, 8), reference=16, seeds=8, depth=1, prompts=3, probes=4, horizon=0.5,
        saves=3, projections=4,
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Trains every width, extrapolates to the infinite one, measures, draws and reports."""
    problem = in_context.problem(
        prompts=config.prompts, probes=config.probes, context=config.context,
        weight_decay=config.weight_decay, kappa=config.kappa, gain=config.gain, mean=config.mean,
    )  # fmt: skip
    times = np.linspace(0.0, config.horizon, config.saves)
    records: list[flow.Record] = []
    train = _training(problem, config, times, records, progress=progress)
    draw = in_context.draw(problem.model, "independent")
    options: Any = {"depths": [config.depth], "seeds": config.seeds, "batched": True}
    every = (*config.widths, config.reference)
    nested = measure.replicas(jax.random.key(1), draw, train, widths=every, **options)
    anew = measure.replicas(
        jax.random.key(2), draw, train, widths=config.widths, nested=False, **options
    )
    arrays = {
        "widths": np.array(config.widths),
        "reference": np.array(config.reference),
        "times": times,
        "nested": _errors(nested, measure.own_reference(nested), config),
        "anew": _errors(anew, measure.mean_reference(nested), config),
        "trained": _trained(nested),
        "linear": _linear(config, times, records, progress=progress),
        "balance": np.array([record.worst_balance for record in records]),
    }
    facts = width_limit_facts.facts(arrays, tolerance=config.tolerance)
    width_limit_report.draw(arrays, facts, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=width_limit_report.report(arrays, facts, config),
        summary=width_limit_report.summary(arrays, facts, config),
        data_checksums={},
        seeds=[1, 2, 3],
    )


def _training(
    problem: in_context.Problem,
    config: Config,
    times: np.ndarray,
    records: list[flow.Record],
    *,
    progress: bool,
) -> Callable[[Any], Trajectory]:
    """The gradient flow of replicas [s l m ...], whose records are kept."""
    both = measure.side_by_side(problem.energy, problem.model.time_scales, problem.observe)
    field = flow.gradient_field(both.energy, both.time_scales)

    def train(thetas: Any) -> Trajectory:
        width = jax.tree.leaves(thetas)[0].shape[2]
        # One program for all widths: compiling takes longer than training the narrow ones wide.
        wide = in_context.repeated(thetas, config.reference)
        record = _flow(
            (field, both.observe), wide, times, config, label=f"{width:3d} heads", progress=progress
        )
        records.append(record)
        seen: Trajectory = record.observables
        copies = config.reference // width
        return seen._replace(clouds=np.asarray(seen.clouds)[..., ::copies, :])

    return train


def _flow(
    both: tuple[flow.GradientField, Any],
    thetas: Any,
    times: np.ndarray,
    config: Config,
    *,
    label: str,
    progress: bool,
) -> flow.Record:
    field, observe = both
    record = flow.gradient_flow(
        field,
        thetas,
        times,
        # Not stiff at these sizes, and compiled in half the time of the stabilised solver.
        solver=diffrax.Heun(),
        rtol=config.rtol,
        atol=config.atol,
        observe=observe,
        progress=label if progress else None,
    )
    if record.result != "completed":
        raise ValueError(f"every flow must reach the horizon, {label}: {record.message}")
    return record


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


def _linear(
    config: Config, times: np.ndarray, records: list[flow.Record], *, progress: bool
) -> dict[str, np.ndarray]:
    """The same of a linear network f(x) = mean of a <b, x>, and its exact limit."""
    both = measure.side_by_side(
        _linear_energy(config.weight_decay), lambda heads: float(heads.shape[1]), _linear_seen
    )
    field = flow.gradient_field(both.energy, both.time_scales)

    def draw(key: Any, width: int, depth: int) -> jax.Array:
        return jnp.asarray(LINEAR_MEAN) + jax.random.normal(key, (depth, width, 3))

    def train(heads: jax.Array) -> Trajectory:
        width = heads.shape[2]
        wide = jnp.repeat(heads, config.reference // width, axis=2)
        record = _flow(
            (field, both.observe),
            wide,
            times,
            config,
            label=f"linear {width:3d}",
            progress=progress,
        )
        records.append(record)
        return record.observables

    runs = measure.replicas(
        jax.random.key(3), draw, train, widths=config.widths, depths=[1], seeds=config.seeds,
        batched=True,
    )  # fmt: skip
    start = tasks.LinearMoments(
        jnp.asarray(LINEAR_MEAN[0] ** 2 + 1),
        jnp.asarray(LINEAR_MEAN[0] * LINEAR_MEAN[1:]),
        jnp.asarray(np.outer(LINEAR_MEAN[1:], LINEAR_MEAN[1:]) + np.eye(2)),
    )
    exact = tasks.linear_moments_flow(
        start, COVARIANCE, TARGET, times, weight_decay=config.weight_decay
    )
    return _trained(runs) | {
        "exact_risk": np.asarray(tasks.linear_risk(exact.product, COVARIANCE, TARGET)),
        "exact_predictions": np.asarray(exact.product) @ LINEAR_PROBES.T,
    }


def _linear_risk(heads: jax.Array) -> jax.Array:
    gap = jnp.mean(heads[..., :1] * heads[..., 1:], axis=(0, 1)) - TARGET
    return gap @ jnp.asarray(COVARIANCE) @ gap / 2


def _linear_seen(heads: jax.Array) -> Trajectory:
    product = jnp.mean(heads[..., :1] * heads[..., 1:], axis=(0, 1))
    return Trajectory(jnp.asarray(LINEAR_PROBES) @ product, _linear_risk(heads))


def _linear_energy(weight_decay: float) -> Callable[[Any], Any]:
    return flow.energy(_linear_risk, lambda heads: 1.0 / heads.shape[1], weight_decay=weight_decay)
