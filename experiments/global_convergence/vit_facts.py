"""What training curves of networks of several sizes say, with intervals over seeds.

    largest minus smallest network:   log training loss, training accuracy
    averaged over training, and at its end

One trap: values of one seed share its draws and the order of its images, so sizes are compared
within each seed and the interval is that of the seeds' differences, never of pooled points.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.global_convergence.verdicts import Interval, over_seeds

NAMES = {"mean_field": "mean-field", "ntk": "neural-tangent", "standard": "standard"}
"""What the laws are called in a report."""
TIMES = {"flow": "τ", "sgd": "epoch", "adam": "epoch"}


class Curves(NamedTuple):
    """Largest minus smallest network of one law.

    Attributes:
        last: Index of the last time that every run reached; all is compared there.
        completed: Whether every run came to its end.
        loss: Of log training loss averaged over time.
        accuracy: Of training accuracy averaged over time.
        end_loss: Of log training loss at the last time.
        end_accuracy: Of training accuracy at the last time.
        end_test: Of test accuracy at the last time.
    """

    last: int
    completed: bool
    loss: Interval
    accuracy: Interval
    end_loss: Interval
    end_accuracy: Interval
    end_test: Interval


def curves(times: np.ndarray, found: dict[str, Any]) -> Curves:
    """The differences between the largest and the smallest network.

    Args:
        times: Times at which all was measured.
        found: Curves [x s t] of one law.
    """
    last = last_common(found["loss"])
    kept = {name: found[name][..., : last + 1] for name in ("loss", "accuracy", "test_accuracy")}
    kept["loss"] = np.log(np.maximum(kept["loss"], 1e-30))
    differences = {name: values[-1] - values[0] for name, values in kept.items()}

    def averaged(name: str) -> Interval:
        if not last:
            return over_seeds(differences[name][:, 0])
        area = np.trapezoid(differences[name], times[: last + 1], axis=-1)
        return over_seeds(area / (times[last] - times[0]))

    return Curves(
        last=last,
        completed=bool(found["completed"].all()),
        loss=averaged("loss"),
        accuracy=averaged("accuracy"),
        end_loss=over_seeds(differences["loss"][:, -1]),
        end_accuracy=over_seeds(differences["accuracy"][:, -1]),
        end_test=over_seeds(differences["test_accuracy"][:, -1]),
    )


def last_common(loss: np.ndarray) -> int:
    """Index of the last time that every run reached: a run that diverged ends in NaN.

    Args:
        loss: Training losses [x s t], finite at the start.
    """
    ended = np.flatnonzero(~np.isfinite(loss).all(axis=(0, 1)))
    return int(ended[0] if len(ended) else loss.shape[-1]) - 1


def ordered(found: Curves, *, at_end: bool) -> tuple[bool | None, str]:
    """Whether the largest network has the lower loss and higher accuracy, and why.

    Args:
        found: The differences.
        at_end: Whether they are taken at the end of training, or averaged over it.
    """
    loss, accuracy = (
        (found.end_loss, found.end_accuracy) if at_end else (found.loss, found.accuracy)
    )
    when = "at the end of training" if at_end else "averaged over training time"
    because = (
        f"{when}, seed by seed: log training loss {signed(loss)}, training accuracy "
        f"{signed(percent(accuracy))} points."
    )
    if not found.completed:
        return None, f"not every run completed; as far as all came, {because}"
    if loss.high < 0 and accuracy.low > 0:
        return True, because
    if loss.low > 0 or accuracy.high < 0:
        return False, because
    named = {"loss": loss, "accuracy": accuracy}
    open_ones = [name for name, value in named.items() if value.low <= 0 <= value.high]
    holds = "intervals" if len(open_ones) > 1 else "interval"
    return None, (
        f"{because} The {holds} of {' and '.join(open_ones)} {'hold' if open_ones[1:] else 'holds'}"
        " 0: more seeds decide."
    )


def percent(value: Interval) -> Interval:
    """A difference of accuracies in points.

    Args:
        value: The difference of shares.
    """
    return Interval(*(100 * part for part in value))


def signed(value: Interval) -> str:
    """A difference with its interval, in words.

    Args:
        value: The difference.

    >>> signed(Interval(0.5, 0.25, 0.75))
    '+0.50 (95 % interval [+0.25, +0.75])'
    """
    return f"{value.mean:+.2f} (95 % interval [{value.low:+.2f}, {value.high:+.2f}])"
