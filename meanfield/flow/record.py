r"""The record of a training run, continuous or discrete, and its energy balance.

Along the exact flow, dQ/dtau = -dD/dtau with the dissipated energy D, so

    residual(tau) = |Q(0) - Q(tau) - D(tau)| / max_{t <= tau} |Q(0) - Q(t)|

measures how far a computed run is from the gradient flow, without a second run.

One trap: ``times`` ends where the run ended; a run that stopped early has fewer rows than were
asked for.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (21) (dissipation).
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

COMPLETED = "completed"
DIVERGED = "diverged"
STOPPED = "stopped"
EXHAUSTED = "exhausted"


class EnergyBalance(NamedTuple):
    """Energy, dissipated energy, and how far their sum drifts, at the record's times.

    A run that ended between two of its times has one row more, at its end.

    Attributes:
        energy: Q.
        dissipated: D, the integral of sum s |grad Q|^2.
        residual: |Q(0) - Q - D| relative to the largest change of Q so far; NaN where Q or D is not
            finite, or where Q never changes although D does.
    """

    energy: Float[np.ndarray, "t"]
    dissipated: Float[np.ndarray, "t"]
    residual: Float[np.ndarray, "t"]


class Record(NamedTuple):
    """What a run leaves behind.

    Attributes:
        times: Times at which observables were saved, as far as the run came.
        observables: What ``observe`` returned, stacked along a leading axis of times.
        theta: The last good parameters: those at the end, or those before trouble.
        end_time: The time of ``theta``.
        result: ``"completed"``, ``"stopped"`` (as asked), ``"diverged"`` or ``"exhausted"``.
        message: One sentence on how the run ended and when.
        statistics: Counts: steps, accepted, rejected; of a flow by RKC2 gradients (all that it
            evaluated; stop conditions and observables apart), products (those of them that went
            into the spectral radius) and stages; of descent gradients.
        balance: The energy balance of a flow; None for descent.
        warnings: Sentences that a report must repeat.
    """

    times: Float[np.ndarray, "t"]
    observables: PyTree[Shaped[np.ndarray, "t ..."]]
    theta: PyTree[Array]
    end_time: float
    result: str
    message: str
    statistics: dict[str, Any]
    balance: EnergyBalance | None = None
    warnings: tuple[str, ...] = ()

    @property
    def worst_balance(self) -> float:
        """Largest relative residual of the energy balance; NaN without one, or without rows."""
        if self.balance is None or not len(self.balance.residual):
            return float("nan")
        return float(np.max(self.balance.residual))


def energy_balance(
    energy: Float[np.ndarray, "t"], dissipated: Float[np.ndarray, "t"], /
) -> EnergyBalance:
    """The energy balance of a flow from its energy and dissipated energy.

    Args:
        energy: Q at the save times, the first at the start.
        dissipated: D at the save times.

    References:
        Gao et al. 2024, arXiv 2410.23610, eq. (21).

    >>> energy_balance(np.array([2.0, 1.0]), np.array([0.0, 0.9])).residual.round(3).tolist()
    [0.0, 0.1]
    """
    if not len(energy):
        return EnergyBalance(energy, dissipated, energy)
    with np.errstate(invalid="ignore", over="ignore"):
        drop = energy[0] - energy
        drift = np.abs(drop - dissipated)
    known = np.isfinite(drift)
    # One time without an energy must not silence the later ones.
    scale = np.maximum.accumulate(np.where(known, np.abs(drop), 0))
    residual = np.divide(drift, scale, out=np.zeros_like(drift), where=known & (scale > 0))
    residual[~known | (drift > 0) & ~np.any(scale > 0)] = np.nan
    return EnergyBalance(energy, dissipated, residual)


def balance_warnings(balance: EnergyBalance, bound: float, /) -> tuple[str, ...]:
    """Sentences on a balance that is off by more than a bound, or unknown; nothing if it passes.

    Args:
        balance: The energy balance.
        bound: Largest relative residual that passes.

    >>> balance_warnings(energy_balance(np.array([2.0, 1.0]), np.array([0.0, 0.9])), 0.2)
    ()
    """
    unknown = np.isnan(balance.residual)
    sentences = []
    if np.any(unknown):
        sentences.append(
            f"the energy balance is unknown at {np.sum(unknown)} of {len(unknown)} saved times, "
            "where the energy or what it dissipated is not finite, or too large for its changes to "
            "show: check labels, data and the initial scale, or use float64"
        )
    worst = float(np.max(balance.residual, initial=0.0, where=~unknown))
    if worst > bound:
        sentences.append(
            f"the energy balance is off by {100 * worst:.2g} %, more than {100 * bound:.2g} %: "
            "this is the gradient flow only to that accuracy; lower rtol"
        )
    return tuple(sentences)


def rows(tree: PyTree, kept: int) -> PyTree[np.ndarray]:
    """The first rows of every leaf, as numpy arrays.

    Args:
        tree: Arrays with a leading axis of times.
        kept: How many rows.

    >>> rows({"risk": np.arange(3)}, 2)["risk"].tolist()
    [0, 1]
    """
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:kept], tree)
