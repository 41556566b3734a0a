"""What the curves of two kernels say, with intervals over seeds.

    higher    Gaussian minus softmax, test accuracy averaged over the last quarter of training
    faster    Gaussian minus softmax, test accuracy averaged over all of training

both seed by seed: a seed has the same initial parameters and minibatches under either kernel.

One trap: three seeds make intervals of 4.3 standard errors. Few seeds leave much open.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments._report import claim
from experiments.global_convergence.verdicts import Interval, over_seeds

CLAIM = (
    "Under the Gaussian kernel test accuracy is higher and rises faster than under softmax "
    "(Song et al. 2024, Section 5: 2-layer Transformer on {task})."
)


class Facts(NamedTuple):
    """What is measured on the curves.

    Attributes:
        last: Index of the last time that every run reached.
        end: Test accuracy over the last quarter, by kernel.
        error: Standard error of one test accuracy near chance, from the number of test samples.
        higher: Gaussian minus softmax, at the end.
        faster: Gaussian minus softmax, over all of training.
        loss: The same of the logarithm of the training loss.
        completed: Whether every run came to its end.
    """

    last: int
    end: tuple[Interval, Interval]
    error: float
    higher: Interval
    faster: Interval
    loss: Interval
    completed: bool


def facts(arrays: dict[str, Any], *, test_samples: int) -> Facts:
    """Everything that the figure and the report state."""
    accuracy, loss = arrays["accuracy"], arrays["train_loss"]
    alive = (np.isfinite(accuracy) & np.isfinite(loss)).all(axis=(0, 1))
    last = int(np.argmin(alive)) - 1 if not alive.all() else len(alive) - 1
    times = arrays["steps"][: last + 1]
    late = slice(last - last // 4, last + 1)

    def apart(values: np.ndarray) -> Interval:
        return over_seeds(values[1] - values[0])

    def averaged(values: np.ndarray) -> np.ndarray:
        kept = values[..., : last + 1]
        if last == 0:
            return kept[..., 0]
        return np.trapezoid(kept, times, axis=-1) / (times[-1] - times[0])

    end = accuracy[..., late].mean(axis=-1)
    return Facts(
        last=last,
        end=(over_seeds(end[0]), over_seeds(end[1])),
        error=0.5 / np.sqrt(test_samples),
        higher=apart(end),
        faster=apart(averaged(accuracy)),
        loss=apart(averaged(np.log(np.maximum(loss, 1e-30)))),
        completed=bool(alive.all()),
    )


def verdict(facts: Facts) -> tuple[bool | None, str]:
    """Whether the run agrees with "Gaussian higher and faster", and why."""
    because = (
        "Gaussian minus softmax, seed by seed, in points of test accuracy: "
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
    return None, f"{because} An interval holds 0: more seeds decide."


def points(value: Interval) -> str:
    """A difference in points with its interval, in words."""
    mean, low, high = (100 * part for part in value)
    return f"{mean:+.1f} (95 % interval [{low:+.1f}, {high:+.1f}])"


def percent(value: Interval) -> str:
    """An accuracy in percent with its interval, in words."""
    mean, low, high = (100 * part for part in value)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def claimed(facts: Facts, task: str) -> str:
    """The claim of the paper and whether the run agrees."""
    agrees, because = verdict(facts)
    return claim(CLAIM.format(task=task), agrees=agrees, because=because)
