r"""What the curves of two kernels say, with intervals over seeds and test samples at once.

    higher    Gaussian minus softmax, test accuracy averaged over the last quarter of training
    faster    Gaussian minus softmax, test accuracy averaged over all of training
    beyond    test accuracy of each kernel in the last quarter, minus a baseline's

The first two are paired: a seed has the same initial parameters and minibatches under either
kernel, and both see the same test samples. D_si is the difference of the shares of that time in
which test sample i was right under seed s; ``rates.crossed_mean`` joins the variance over seeds and
that over samples,

    half^2 = t_{S-1}^2 var_s(mean_i D)/S + t_{N-1}^2 var_i(mean_s D)/N

and for ``beyond`` also z^2 b(1 - b)/N for the baseline b, as if it had samples of its own. All four
intervals together hold in 95 % of runs: each is at 98.75 % (Bonferroni).

One trap: t_2 at 98.75 % is 8.9. With three seeds hardly any difference is sure; with five, t is
4.3.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from experiments._report import claim
from experiments.global_convergence.verdicts import Interval, over_seeds
from meanfield import rates

CLAIM = (
    "Under the Gaussian kernel test accuracy is higher and rises faster than under softmax "
    "(Song et al. 2024, Section 5: 2-layer Transformer on {task})."
)
FAMILY = 4
"""Intervals that hold together: two differences, and each kernel against the baseline."""
LEVEL = 1 - 0.05 / FAMILY
"""Level of each of them."""
OPEN = Interval(math.nan, math.nan, math.nan)


class Facts(NamedTuple):
    """What is measured on the curves.

    Attributes:
        last: Index of the last time that every run reached, -1 if there is none.
        end: Test accuracy over the last quarter, by kernel.
        higher: Gaussian minus softmax, at the end.
        faster: Gaussian minus softmax, over all of training.
        beyond: Test accuracy over the last quarter minus the baseline's, by kernel.
        stopped: Test accuracy [kernel, seed] at the time of the least validation loss.
        stops: Those times, in steps.
        loss: Gaussian minus softmax of the logarithm of the training loss, 95 % over seeds alone.
        completed: Whether every run came to its end.
    """

    last: int
    end: tuple[Interval, Interval]
    higher: Interval
    faster: Interval
    beyond: tuple[Interval, Interval]
    stopped: np.ndarray
    stops: np.ndarray
    loss: Interval
    completed: bool


def averages(arrays: dict[str, Any], right: np.ndarray) -> dict[str, np.ndarray]:
    """How often each test sample was right, ``late`` and ``whole`` [kernel, seed, sample].

    Args:
        arrays: Losses and accuracies [kernel, seed, time], and ``steps``.
        right: Whether it was right [kernel, seed, sample, time].
    """
    last = _last(arrays)
    if last < 0:
        return dict.fromkeys(("late", "whole"), np.full(right.shape[:-1], np.nan, np.float32))
    kept = right[..., : last + 1].astype(np.float32)
    late = kept[..., last - last // 4 :].mean(axis=-1)
    return {"late": late, "whole": _averaged(kept, arrays["steps"]).astype(np.float32)}


def with_baseline(baseline: tuple[str, float]) -> dict[str, Any]:
    """What a record keeps of a baseline.

    Args:
        baseline: What it is, and its test accuracy.
    """
    return {"baseline": {"name": np.array(baseline[0]), "accuracy": np.array(baseline[1])}}


def baseline(arrays: dict[str, Any]) -> tuple[str, float]:
    """The baseline in a record: what it is, and its test accuracy.

    Args:
        arrays: The record.
    """
    kept = arrays["baseline"]
    return str(kept["name"]), float(kept["accuracy"])


def facts(arrays: dict[str, Any], *, baseline: float) -> Facts:
    """Everything that the figure and the report state.

    Args:
        arrays: What ``race.curves`` hands back.
        baseline: Test accuracy to hold the kernels against.
    """
    last = _last(arrays)
    if last < 0:
        none = np.full(arrays["accuracy"].shape[:2], np.nan)
        return Facts(last, (OPEN, OPEN), OPEN, OPEN, (OPEN, OPEN), none, none, OPEN, False)
    late, whole = (np.asarray(arrays[name], float) for name in ("late", "whole"))
    ends = (_interval(late[0]), _interval(late[1]))
    error = baseline * (1 - baseline) / late.shape[-1]
    own = NormalDist().inv_cdf(0.5 + LEVEL / 2) * math.sqrt(error)
    at = np.argmin(arrays["valid_loss"][..., : last + 1], axis=-1)
    loss = _averaged(np.log(np.maximum(arrays["train_loss"], 1e-30)), arrays["steps"][: last + 1])
    return Facts(
        last=last,
        end=ends,
        higher=_interval(late[1] - late[0]),
        faster=_interval(whole[1] - whole[0]),
        beyond=(_beyond(ends[0], baseline, own), _beyond(ends[1], baseline, own)),
        stopped=np.take_along_axis(arrays["accuracy"], at[..., None], axis=-1)[..., 0],
        stops=np.asarray(arrays["steps"])[at],
        loss=over_seeds(loss[1] - loss[0]),
        completed=last == len(arrays["steps"]) - 1,
    )


def diverged(arrays: dict[str, Any], names: tuple[str, str]) -> list[str]:
    """Which runs did not stay finite, each with the last time at which it was.

    Args:
        arrays: What ``race.curves`` hands back.
        names: What the kernels are called.
    """
    alive = _alive(arrays)
    found = []
    for kernel, seed in np.argwhere(~alive.all(axis=-1)):
        first = int(alive[kernel, seed].argmin())
        when = f"after {arrays['steps'][first - 1]:,} steps" if first else "from its start"
        found.append(f"{names[kernel]}, seed {seed + 1}, {when}")
    return found


def verdict(facts: Facts) -> tuple[bool | None, str]:
    """Whether the run agrees with "Gaussian higher and faster", and why."""
    if facts.last < 0:
        return None, "not every run was finite before its first step: there is nothing to compare."
    because = (
        "Gaussian minus softmax, in points of test accuracy: "
        f"{points(facts.higher)} at the end and {points(facts.faster)} averaged over training."
    )
    if not facts.completed:
        return None, f"not every run stayed finite; as far as all came, {because}"
    if facts.higher.low > 0 and facts.faster.low > 0:
        return True, because
    if max(one.low for one in facts.end) <= 0.5 and facts.higher.low <= 0:
        return None, f"neither kernel is surely above chance. {because}"
    if facts.higher.high < 0 or facts.faster.high < 0:
        return False, because
    return None, f"{because} An interval holds 0: more seeds or test samples decide."


def against(facts: Facts, baseline: tuple[str, float], names: tuple[str, str]) -> str:
    """Whether the kernels beat the baseline, in one sentence.

    Args:
        facts: The facts.
        baseline: What it is, and its test accuracy.
        names: What the kernels are called.
    """
    said = f"{baseline[0]} ({100 * baseline[1]:.1f} %)"
    if facts.last < 0:
        return f"Nothing is to be held against {said}."
    lows, highs = ([getattr(one, end) for one in facts.beyond] for end in ("low", "high"))
    each = ", ".join(f"{name} {points(one)}" for name, one in zip(names, facts.beyond, strict=True))
    above = [name for name, low in zip(names, lows, strict=True) if low > 0]
    below = [name for name, high in zip(names, highs, strict=True) if high < 0]
    word = {0: "Neither kernel surely beats", 1: f"Only {''.join(above)} surely beats"}
    start = word.get(len(above), "Both kernels surely beat")
    worse = f"; surely below it: {' and '.join(below)}" if below else ""
    return f"{start} {said}; in points above it, {each}{worse}."


def points(value: Interval) -> str:
    """A difference in points with its interval, in words."""
    mean, low, high = (100 * min(max(part, -1.0), 1.0) for part in value)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def percent(value: Interval) -> str:
    """An accuracy in percent with its interval, in words."""
    mean, low, high = (100 * min(max(part, 0.0), 1.0) for part in value)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def claimed(facts: Facts, task: str) -> str:
    """The claim of the paper and whether the run agrees."""
    agrees, because = verdict(facts)
    return claim(CLAIM.format(task=task), agrees=agrees, because=because)


def _last(arrays: dict[str, Any]) -> int:
    alive = _alive(arrays)
    every = alive.reshape(-1, alive.shape[-1]).all(axis=0)
    return alive.shape[-1] - 1 if every.all() else int(np.argmin(every)) - 1


def _alive(arrays: dict[str, Any]) -> np.ndarray:
    """Whether losses and answers were finite [kernel, seed, time]."""
    curves = [arrays[name] for name in ("accuracy", "train_loss", "valid_loss")]
    return np.all(np.isfinite(np.stack(curves)), axis=0)


def _averaged(values: np.ndarray, steps: Any) -> np.ndarray:
    """The mean over time of values [..., time], as long as both last."""
    times = np.asarray(steps)[: values.shape[-1]]
    kept = values[..., : len(times)]
    if len(times) == 1:
        return kept[..., 0]
    return np.trapezoid(kept, times, axis=-1) / (times[-1] - times[0])


def _interval(values: np.ndarray) -> Interval:
    return Interval(*rates.crossed_mean(values, confidence=LEVEL))


def _beyond(end: Interval, baseline: float, own: float) -> Interval:
    half = math.hypot(end.high - end.mean, own)
    centre = end.mean - baseline
    return Interval(centre, centre - half, centre + half)
