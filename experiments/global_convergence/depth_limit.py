r"""The limit of infinite depth, and how two couplings of the layers approach it.

    f(L) - f(ODE) = O(1/L)                                  at given particles, one path per head;
    sup_tau |f_{M,L}(tau) - f_{oo,L}(tau)| ~ (L M)^{-1/2}   heads drawn anew at every layer,
                                           ~ M^{-1/2}       one path over depth per head.

Every coupling is trained at every width M and depth L, and compared with wide networks of its own
depth (the fluctuation alone) and with wide networks of large depth (fluctuation and bias 1/L).

One trap: networks that are compared are trained by the same steps. Their error is common, and the
report says how large it is.

References:
    Gao et al. 2024, arXiv 2410.23610; Chizat 2025, arXiv 2509.10167; Ding et al., eq. (7), (11).
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments._cli import Outcome
from experiments.global_convergence import depth_limit_facts, depth_limit_report, in_context
from meanfield import checks, measure, theory
from meanfield import progress as shown
from meanfield.kept import NOTHING, Kept

SUMMARY = "Depth: order 1/L to the depth ODE; fluctuation of layers drawn anew, and of paths."
COUPLINGS = ("independent", "path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """In-context regression at several widths and depths, in both couplings."""

    widths: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Numbers of heads in each layer."""
    together: int = 16
    """Widths up to this one, its divisors, share a program; each wider one compiles its own."""
    depths: tuple[int, ...] = (8, 16, 32, 64)
    """Numbers of layers. At 4 layers the fluctuation is a sixth smaller than its law says."""
    seeds: int = 64
    """Networks of each width, depth and coupling. Fewer leave slopes 0.1 uncertain."""
    limit_depth: int = 96
    """Layers of the networks that stand for infinite depth."""
    reference_width: int = 64
    """Heads in each layer of the networks that stand for infinite width."""
    reference_seeds: int = 32
    """How many of these are averaged, at each depth."""
    layers: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Depths at which the untrained network is compared with the depth ODE."""
    paths: int = 16
    """Heads of that network."""
    draws: int = 16
    """How many such networks."""
    prompts: int = 4
    """Training prompts."""
    probes: int = 8
    """Further prompts, at which predictions are compared."""
    context: int = 3
    """Labelled examples in a prompt."""
    kappa: float = 0.5
    """Constant before each layer."""
    mean: float = 0.3
    """Mean of the entries of a head at the start."""
    gain: float = 0.3
    """Square root of their variance times the fan-in."""
    weight_decay: float = 1e-2
    """Constant lambda of the decay."""
    horizon: float = 1.0
    """Length of training, in mean-field time."""
    saves: int = 3
    """Times at which networks are compared, both ends included."""
    steps: int = 2
    """Steps of the midpoint rule between two of them."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("reference_seeds", "together", "prompts", "probes", "context", "steps"):
            checks.count(name, getattr(self, name))
        for name, least in (("paths", 1), ("draws", 2)):
            checks.count(name, getattr(self, name), least=least)
        for name in ("horizon", "gain", "kappa"):
            checks.positive(name, getattr(self, name))
        checks.finite("mean", self.mean)
        checks.non_negative("weight_decay", self.weight_decay)
        checks.count("saves", self.saves, least=3)
        checks.count("seeds", self.seeds, least=8)
        for name, least in (("widths", 3), ("depths", 3), ("layers", 3)):
            in_context.check_increasing(name, getattr(self, name), least=least)
        in_context.check_divides([w for w in self.widths if w < self.together], self.together)
        if any(depth % 4 for depth in self.layers):
            raise ValueError(f"layers must be multiples of 4, to have quarters, got {self.layers}")
        for name, size, other in (
            ("reference_width", self.reference_width, self.widths[-1]),
            ("limit_depth", self.limit_depth, self.depths[-1] + 1),
        ):
            checks.count(name, size, least=other)


PRESETS = {
    "tiny": Config(
        widths=(2, 4, 8), together=8, depths=(1, 2, 4), seeds=8, limit_depth=8, reference_width=8,
        reference_seeds=8, layers=(4, 8, 16), paths=4, draws=8, prompts=3, probes=4, saves=3,
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool, kept: Kept = NOTHING) -> Outcome:
    """Compares with the depth ODE, trains every coupling, measures, draws and reports."""
    problem = in_context.problem(
        prompts=config.prompts, probes=config.probes, context=config.context,
        weight_decay=config.weight_decay, kappa=config.kappa, gain=config.gain, mean=config.mean,
    )  # fmt: skip
    order = kept.member("order", lambda: _order(config, problem))
    arrays = {"layers": np.array(config.layers, dtype=float), "order": order}
    arrays |= _grid(config, problem, kept, progress=progress)
    facts = depth_limit_facts.facts(arrays)
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=depth_limit_report.report(arrays, facts, config),
        summary=depth_limit_report.summary(facts),
        data_checksums={},
        seeds=list(range(1, 5)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    del config
    depth_limit_report.draw(arrays, depth_limit_facts.facts(arrays), out_dir)


def _order(config: Config, problem: in_context.Problem) -> dict[str, np.ndarray]:
    """Error [s x] of tokens and forces at quarters of the depth, against the depth ODE."""
    (block,) = problem.model.network.blocks
    draw = jax.jit(
        lambda key: in_context.draw_at_once(problem, "path")(key, config.paths, 1).blocks
    )
    at = np.array([0.0, 0.25, 0.5, 0.75])
    errors = {"tokens": [], "forces": []}
    for key in jax.random.split(jax.random.key(1), config.draws):
        (heads,) = draw(key)
        (limit,) = theory.limit_states(
            (block.mean,), problem.token_risk, (heads,), problem.tokens, at,
            kappa=config.kappa, rtol=1e-6, atol=1e-7,
        )  # fmt: skip
        gaps = {name: [] for name in errors}
        for depth in config.layers:
            # In numpy: every small operation of jax would compile for every depth.
            paths = jax.tree.map(functools.partial(np.repeat, repeats=depth, axis=0), heads)
            (states,) = theory.network_states(
                (block.mean,), problem.token_risk, (paths,), problem.tokens, kappa=config.kappa
            )
            places = (depth * at).astype(int)
            for name, row in gaps.items():
                own, exact = (np.asarray(getattr(one, name)) for one in (states, limit))
                row.append(np.abs(own[places] - exact).max())
        for name, rows in errors.items():
            rows.append(gaps[name])
    return {name: np.array(rows) for name, rows in errors.items()}


def _grid(
    config: Config, problem: in_context.Problem, kept: Kept, *, progress: bool
) -> dict[str, Any]:
    """Errors of both couplings at every width and depth, sup over training."""
    ts = np.linspace(0.0, config.horizon, config.saves)
    flows = in_context.midpoint(problem, ts, steps=config.steps)
    ends = len(config.depths) * (2 * len(config.widths) + 1) + 1
    with shown.counted("networks" if progress else None, ends) as done:

        def trained(name: str, thetas: Any) -> Any:
            depth, width = jax.tree.leaves(thetas)[0].shape[1:3]

            def compute() -> Any:
                wide = in_context.repeated(thetas, max(width, config.together))
                # Fetched at once: work is queued, and progress would run ahead of it.
                found = jax.device_get(flows(wide))
                if not np.all(np.isfinite(found.risk)):
                    raise ValueError(
                        f"training must stay finite, but {name}, depth {depth}, width {width} did "
                        "not; raise steps, or lower horizon or gain"
                    )
                return found

            seen = kept.member(f"{name}, {depth} layers of {width}", compute)
            done()
            return seen

        wide = measure.replicas(
            jax.random.key(2),
            in_context.draw_at_once(problem, "independent"),
            functools.partial(trained, "wide"),
            widths=[config.reference_width],
            depths=[*config.depths, config.limit_depth],
            seeds=config.reference_seeds,
            batched=True,
        )
        grids = {
            coupling: measure.replicas(
                jax.random.key(seed),
                in_context.draw_at_once(problem, coupling),
                functools.partial(trained, coupling),
                widths=config.widths,
                depths=config.depths,
                seeds=config.seeds,
                nested=False,
                batched=True,
            )
            for seed, coupling in zip((3, 4), COUPLINGS, strict=True)
        }
    couplings = {name: _errors(config, runs, wide) for name, runs in grids.items()}
    solver = kept.member("solver", lambda: _solver_error(config, problem, ts, wide))
    return {"couplings": couplings, "risk": _risk(wide), "times": ts, "solver": solver}


def _solver_error(
    config: Config, problem: in_context.Problem, ts: np.ndarray, wide: measure.Replicas
) -> np.ndarray:
    """Change of the predictions of the wide networks at twice the steps, sup over training."""
    finer = measure.replicas(
        jax.random.key(2),
        in_context.draw_at_once(problem, "independent"),
        in_context.midpoint(problem, ts, steps=2 * config.steps),
        widths=wide.widths[:1],
        depths=wide.depths[:1],
        seeds=config.reference_seeds,
        batched=True,
    )
    gaps = finer.trajectories[0].predictions - wide.trajectories[0].predictions
    return np.sqrt(np.max(np.mean(gaps**2, axis=(0, 2))))


def _risk(wide: measure.Replicas) -> dict[str, np.ndarray]:
    """Mean risk of the wide networks over time, by depth."""
    rows = zip(wide.depths, wide.trajectories, strict=True)
    return {str(depth): seen.risk.mean(axis=0) for depth, seen in rows}


def _errors(config: Config, runs: measure.Replicas, wide: measure.Replicas) -> dict[str, Any]:
    """Errors [s c] against wide networks of the same depth and of large depth."""
    own = measure.sup_errors(runs, measure.mean_reference(wide))
    deep = measure.sup_errors(runs, measure.mean_reference(wide, depth=config.limit_depth))
    return {
        "widths": own.widths,
        "depths": own.depths,
        "effective_widths": own.effective_widths,
        "predictions": own.predictions,
        "risk": own.risk,
        "to_limit": deep.predictions,
        "reference_width": np.array(deep.reference[0]),
        "reference_depths": deep.reference[1],
    }
