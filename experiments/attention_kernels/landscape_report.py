"""Report of the landscape, from its record and the facts.

One trap: nothing is decided here; what a sentence says comes from ``landscape_facts``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import _report
from experiments.attention_kernels import landscape_facts
from experiments.attention_kernels.landscape_facts import Facts
from experiments.attention_kernels.landscape_figures import TASK_NAMES
from experiments.attention_kernels.landscape_stages import Problem
from experiments.attention_kernels.landscape_terrain import CLOSE
from experiments.attention_kernels.race_report import NAMES
from experiments.attention_kernels.training import KERNELS
from experiments.global_convergence import verdicts

UNKNOWN = (
    "What the paper says of its Figure 4: training in two stages, of which only the second's "
    "attention kernel differs, and a surface over two directions of the parameters. Not published: "
    "the lengths of the stages, what stage 1 trains and under which kernel, the directions, their "
    "ranges, the samples of the loss, seeds, and any number. Those are ours, below; no agreement "
    "with the published picture can be more than one of kind."
)


def report(
    arrays: dict[str, Any], facts: dict[str, Facts], config: Any, problems: Sequence[Problem]
) -> str:
    """The page report.md."""
    sections = [
        UNKNOWN,
        _chosen(config),
        "## The claim",
        landscape_facts.claimed(facts),
        "A difference is Gaussian minus softmax, paired by seed, with its 95 % interval over "
        f"{config.seeds} seeds; barriers below {landscape_facts.FLAT:g} count as 0. Each interval "
        "stands alone: of twenty that hold their value, one misses it by chance. Curvature depends "
        "on the loss at which it is taken: see the losses in the tables.",
    ]
    for problem in problems:
        sections += _task(problem, arrays[problem.name], facts[problem.name], config)
    sections += [
        "## The ways",
        _report.figure(
            "paths.png",
            "Left: training loss over both stages. Middle: the risk on the segment from the end of "
            "stage 1 to the end of stage 2, under each kernel's own risk. Right: on the segment "
            "between the two kernels' ends, under each kernel's risk. Lines: mean over seeds; "
            "bands: least to greatest.",
        ),
    ]
    return _report.page("The landscape under softmax and Gaussian attention", sections)


def _chosen(config: Any) -> str:
    way = (
        "random and filter-normalised with the norms at the end of stage 1 (biases and other "
        "one-dimensional parameters stay where they are)"
        if config.directions == "random"
        else "the two principal ones of both kernels' ways to their ends, scaled to hold them"
    )
    rows = "rows normalised" if config.normalize else "rows not normalised"
    return (
        f"Chosen: stage 1 trains everything with softmax for {config.stage_one:,} steps; stage 2 "
        f"goes on from the same point, with a new optimiser, under softmax and under the Gaussian "
        f"kernel (c = {config.bandwidth:g}, {rows}) for {config.stage_two:,} steps on the same "
        f"minibatches of {config.batch}. Directions: {way}, seed {config.direction_seed}, the same "
        f"for both kernels; a, b in [−{config.span:g}, {config.span:g}], {config.points} × "
        f"{config.points} points around each kernel's own end M. Risk: the cross-entropy of "
        f"{config.measured} training samples. Model: {config.depth} layers, token dimension "
        f"{config.dim}, {config.heads} heads of dimension {config.head_dim}, {config.neurons} "
        "feed-forward neurons, learned positions, mean pooling, plain sums, no layer norm. The "
        "data are generated, so there is no data to give."
    )


def _task(problem: Problem, arrays: dict[str, Any], facts: Facts, config: Any) -> list[str]:
    rule = "SGD" if problem.training.optimizer == "sgd" else "Adam"
    outside = " and ".join(f"{100 * share:.4g} %" for share in facts.outside)
    chance = f"ln 2 = {np.log(2):.3f} is the loss of a constant answer"
    return [
        f"## {TASK_NAMES[problem.name][0].upper()}{TASK_NAMES[problem.name][1:]}",
        f"Data: {problem.data}. {rule}, constant learning rate "
        f"{problem.training.learning_rate:g}; {chance}. Stage 1 ends at loss "
        f"{_spread(arrays['one_train_loss'][:, -1])}, test accuracy "
        f"{_spread(100 * arrays['one_accuracy'][:, -1])} %.",
        _report.figure(
            f"surface_{problem.name}.png",
            "The risk around M, seed 1, on one scale of colours and heights. Orange: stage 2, "
            "projected onto the plane. Of the squared distance from its start to its end up to "
            f"{outside} (softmax and Gaussian, the worst seed) is not in the plane.",
        ),
        verdicts.table([*facts.flatter, *facts.barriers]),
        "### Numbers at the end of stage 2",
        _numbers(arrays),
        f"Mean over seeds (least–greatest). Extreme eigenvalues by {config.lanczos} Lanczos steps: "
        f"{facts.converged[0]} of {facts.converged[1]} pairs converged to {config.tolerance:g} of "
        "the larger one; where one did not, λ_max is a lower bound and λ_min an upper one. Trace: "
        f"{config.probes} probes, ± the standard error of the worst seed. Rise: over "
        f"{config.coarse} × {config.coarse} points. Minima: on the surface drawn, off its edge.",
        "### Attention maps at the end of stage 2",
        _maps(arrays),
        f"Medians over the {config.observed} longest test samples, layers and heads; mean over "
        "seeds (least–greatest). Entropy in nats, of rows divided by their sum; clustering: share "
        f"of pairs of final tokens with cosine above {CLOSE:g}; condition: of the update Attn(X) "
        "and of Attn(X) + X.",
    ]


def _numbers(arrays: dict[str, Any]) -> str:
    end = arrays["two_accuracy"][:, :, -1]
    error = arrays["trace_error"].max(axis=1)
    rows = [
        ["risk R(M)", *map(_spread, arrays["risk"])],
        ["test accuracy (%)", *map(_spread, 100 * end)],
        ["risk where stage 2 starts", *map(_spread, arrays["stage_way"][:, :, 0])],
        ["largest eigenvalue λ_max", *map(_spread, arrays["largest"])],
        ["smallest eigenvalue λ_min", *map(_spread, arrays["smallest"])],
        ["trace", *(f"{_spread(arrays['trace'][i])} ± {error[i]:.2g}" for i in range(2))],
        ["mean rise over the plane", *map(_spread, arrays["rise"])],
        ["barrier of stage 2", *map(_height, arrays["stage_barrier"])],
        ["barrier between the kernels' ends", *map(_height, arrays["kernel_barrier"])],
        ["local minima on the surface, seed 1", *(str(int(n)) for n in arrays["minima"])],
    ]
    return _report.table(["", *(NAMES[kernel] for kernel in KERNELS)], rows)


def _maps(arrays: dict[str, Any]) -> str:
    titles = {
        "entropy": "entropy", "rank": "effective rank", "clustering": "clustering",
        "condition": "condition of Attn(X)", "condition_skip": "condition of Attn(X) + X",
    }  # fmt: skip
    rows = [[title, *map(_spread, arrays[name])] for name, title in titles.items()]
    return _report.table(["", *(NAMES[kernel] for kernel in KERNELS)], rows)


def _height(values: np.ndarray) -> str:
    return _spread(landscape_facts.floored(values))


def _spread(values: np.ndarray) -> str:
    mean, low, high = (f"{x:.3g}" for x in (values.mean(), values.min(), values.max()))
    return f"{mean} ({low}–{high})".replace("-", "−")


def summary(facts: dict[str, Facts]) -> str:
    """A few lines for the terminal."""
    agrees, because = landscape_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    return f"This run {word} a flatter landscape under the Gaussian kernel: {because}"
