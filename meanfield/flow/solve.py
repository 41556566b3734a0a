r"""The gradient flow, solved as an ordinary differential equation.

    dtheta/dtau = -s grad Q(theta),      dD/dtau = sum s |grad Q|^2,

with the dissipated energy D carried beside the state at no extra gradient, so that every run
certifies itself by the energy balance

    residual(tau) = |Q(0) - Q(tau) - D(tau)| / max_{t <= tau} |Q(0) - Q(t)|,

which is zero on the exact flow and of the solver's order on a computed one. The error of D counts
in the choice of the step beside the root mean square error of theta.

One trap: the flow is stiff (sharpness x horizon is 10^3 to 10^5); a classical explicit solver at
loose tolerance hovers at its stability limit and reports a sharpness of its own.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (9), (21) (flow and dissipation).
    Kidger 2022, *On Neural Differential Equations*, arXiv 2202.02435 (diffrax).
"""

from typing import Any, cast

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from meanfield import checks, ode
from meanfield.flow import progress as bars
from meanfield.flow.gradient import GradientField
from meanfield.flow.observables import Observe, observables, observed
from meanfield.flow.program import whole
from meanfield.flow.record import (
    COMPLETED,
    DIVERGED,
    EXHAUSTED,
    STOPPED,
    Record,
    balance_warnings,
    energy_balance,
    rows,
)
from meanfield.flow.resuming import checkable, resumed
from meanfield.flow.start import adaptive, check_start, energy_and_fall, first_step, save_times
from meanfield.flow.stopping import Stop, conditions


def gradient_flow(
    field: GradientField,
    theta: PyTree[Float[Array, "..."]],
    ts: Any,
    /,
    *,
    solver: diffrax.AbstractAdaptiveSolver | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    observe: Observe = None,
    stop: Stop = None,
    max_steps: int = 100_000,
    balance_bound: float = 0.01,
    progress: str | None = None,
    checkpoint: Any = None,
) -> Record:
    """Solves dtheta/dtau = -s grad Q(theta) and saves observables along the way.

    Args:
        field: The field of the flow, from :func:`gradient_field`.
        theta: Parameters at ``ts[0]``.
        ts: Increasing times at which observables are saved, from the start of the flow to its end.
        solver: An adaptive diffrax solver; :class:`meanfield.ode.RKC2` if None.
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance of a step.
        observe: What to save, a function of theta or a dictionary: the same objects compile once.
        stop: When to end early (:func:`gradient_below`, :func:`risk_below`, :func:`stationary`, or
            any function of theta to a truth value; or a dictionary): asked after every step.
        max_steps: Steps after which the run gives up.
        balance_bound: Relative residual of the energy balance above which the record warns.
        progress: Label of a progress bar; None for no bar.
        checkpoint: ``store.Checkpoints(directory)``, where the flow saves itself and goes on from,
            to the same record, bit for bit; refused if those in there are of another flow.

    Returns:
        The record. A flow that diverges stops; the record says when and why, and keeps the rest.

    Raises:
        ValueError: If an argument breaks these rules, or the energy at the start is not finite.

    References:
        Gao et al. 2024, arXiv 2410.23610, eq. (9), (21).

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2 / 2)
    >>> round(float(flow.gradient_flow(field, jnp.array(1.0), [0.0, 1.0], rtol=1e-6).theta), 4)
    0.3679
    """
    times, theta = save_times(ts), jax.tree.map(jnp.asarray, theta)
    ode.check_tolerances(rtol, atol)
    checks.positive("balance_bound", balance_bound)
    dtype = check_start(field, theta, times)
    functions, stops = observables(observe), conditions(stop, theta)
    first = first_step(field, theta, times, rtol)
    problem = (field, theta, functions, stops)
    numbers = (jnp.asarray(given, dtype) for given in (times, first, [rtol, atol]))
    options = {"solver": solver, "max_steps": max_steps, "progress": progress}
    solution, seen = _solved(problem, *numbers, checkpoint=checkpoint, **options)
    saved = _saved(solution, seen, field, theta, functions)
    return _record(solution, (field, jax.tree.structure(theta)), times, saved, balance_bound)


def _solved(problem, *numbers, solver, max_steps, progress, checkpoint):
    options: dict[str, Any] = {
        "solver": adaptive(ode.RKC2() if solver is None else solver),
        "max_steps": checks.count("max_steps", max_steps),
    }
    if checkpoint is None:
        return whole(problem, *numbers, meter=bars.meter(progress), **options)
    options |= {"checkpoints": checkable(checkpoint), "progress": progress}
    return resumed(problem, *numbers, **options)


def _saved(solution, seen, field, theta, functions):
    (reached, _), ((_, *energies), _) = cast(Any, (solution.ts, solution.ys))
    kept = int(np.sum(np.isfinite(np.asarray(reached))))
    # diffrax saves nothing before the first step is accepted; the start is known all the same.
    saved = seen, *energies
    return rows(saved, kept) if kept else rows(_first_row(field, theta, functions), 1)


@jax.jit
def _first_row(field, theta, functions):
    row = observed(functions, theta), field.energy(theta), 0.0
    return jax.tree.map(lambda value: jnp.asarray(value)[None], row)


def _record(
    solution: diffrax.Solution,
    problem: tuple[GradientField, Any],
    times: np.ndarray,
    saved: tuple[Any, np.ndarray, np.ndarray],
    balance_bound: float,
) -> Record:
    (_, (end,)), (_, last) = cast(Any, (solution.ts, solution.ys))
    (field, structure), (seen, energies, dissipated) = problem, saved
    end_time = float(end)
    theta = jax.tree.unflatten(structure, [leaf[0] for leaf in last.leaves])
    statistics = {
        "steps": int(solution.stats["num_steps"]),
        "accepted": int(solution.stats["num_accepted_steps"]),
        "rejected": int(solution.stats["num_rejected_steps"]),
    }
    work = {name: int(count) for name, count in ode.work(solution).items()}
    if work:
        # And the gradient that chose the first step.
        statistics |= {"gradients": work.pop("evaluations") + 1, **work}
    met = [name for name, hit in (solution.event_mask or {}).items() if hit]
    result, message = _outcome(solution.result, end_time, times[-1], statistics, met)
    reached = times[: len(energies)]
    if result != COMPLETED and end_time > reached[-1]:
        # The way from the last saved time to the end is certified like the rest.
        energies = np.append(energies, energy_and_fall(field, theta)[0])
        dissipated = np.append(dissipated, last.dissipated[0])
    balance = energy_balance(energies, dissipated)
    return Record(
        times=reached,
        observables=seen,
        theta=theta,
        end_time=end_time,
        result=result,
        message=message,
        statistics=statistics,
        balance=balance,
        warnings=balance_warnings(balance, balance_bound),
    )


def _outcome(
    result: Any, end: float, horizon: float, statistics: dict, met: list[str]
) -> tuple[str, str]:
    if result == diffrax.RESULTS.successful:
        return COMPLETED, f"reached time {end:g} in {statistics['accepted']} steps"
    where = f"stopped at time {end:g} of {horizon:g}"
    if result == diffrax.RESULTS.event_occurred:
        return STOPPED, f"{where}, as asked by {met[0]}, after {statistics['accepted']} steps"
    if result == diffrax.RESULTS.max_steps_reached:
        return EXHAUSTED, f"{where}: {statistics['steps']} steps used up; raise max_steps or rtol"
    return DIVERGED, (
        f"{where}: no smaller step leads on, for the flow blows up or its gradient is not finite; "
        "check labels and data, lower the initial scale or raise weight_decay"
    )
