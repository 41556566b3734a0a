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
from experiments.attention_kernels.landscape_problems import Problem
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
        "A difference is Gaussian minus softmax, paired by seed, with its interval over "
        f"{config.seeds} seeds; barriers below {landscape_facts.FLAT:g} count as 0. The "
        f"{landscape_facts.COMPARED * len(problems)} intervals hold together with 95 % "
        f"(Bonferroni: each alone with {100 * landscape_facts.confidence(len(problems)):.4g} %). "
        "Curvature depends on the loss at which it is taken: see the losses in the tables.",
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
        "## Spectra",
        _report.figure(
            "spectra.png",
            "Spectral density of the Hessian at M, by stochastic Lanczos quadrature: "
            f"{config.probes} probes of {config.lanczos} steps a seed, each node broadened by "
            "1/150 of the range. Lines: mean over seeds; bands: least to greatest. Dotted: the "
            "height of one single eigenvalue.",
        ),
        "## Heads",
        _report.figure(
            "heads.png",
            "Every head of every seed, at M: the entropy and the effective rank of its attention "
            "map (medians over the samples), and the largest eigenvalue of its block of the "
            "Hessian.",
        ),
    ]
    return _report.page("The landscape under softmax and Gaussian attention", sections)


def _chosen(config: Any) -> str:
    ways = {
        "random": "random and filter-normalised with the norms at the end of stage 1 (biases and "
        "other one-dimensional parameters stay where they are)",
        "trajectory": "the two principal ones of both kernels' ways to their ends, each counted as "
        "of length 1, scaled to hold them",
    }
    way = "; ".join(ways[kind] for kind in config.directions)
    rows = "rows normalised" if config.normalize else "rows not normalised"
    return (
        "Chosen: stage 1 trains everything with softmax; stage 2 goes on from the same point, with "
        f"a new optimiser, under softmax and under the Gaussian kernel (c = {config.bandwidth:g}, "
        f"{rows}), for as many steps on the same minibatches. Directions: {way}; seed "
        f"{config.direction_seed}, the same for both kernels; a, b in [−{config.span:g}, "
        f"{config.span:g}], {config.points} × {config.points} points around each kernel's own end "
        f"M. Risk: the cross-entropy of {config.measured} training samples. Model: {config.depth} "
        f"layers, token dimension {config.dim}, {config.heads} heads of dimension "
        f"{config.head_dim}, {config.neurons} feed-forward neurons, learned positions, mean "
        "pooling, plain sums, no layer norm."
    )


def _task(problem: Problem, arrays: dict[str, Any], facts: Facts, config: Any) -> list[str]:
    training = problem.training
    rule = "SGD" if training.optimizer == "sgd" else "Adam"
    chance = f"ln 2 = {np.log(2):.3f} is the loss of a constant answer"
    return [
        f"## {TASK_NAMES[problem.name][0].upper()}{TASK_NAMES[problem.name][1:]}",
        f"Data: {problem.data}. {rule}, constant learning rate {training.learning_rate:g}, "
        f"{training.steps:,} steps of {training.batch} in each stage; {chance}. Stage 1 ends at "
        f"loss {_spread(arrays['one_train_loss'][:, -1])}, test accuracy "
        f"{_spread(100 * arrays['one_accuracy'][:, -1])} %.",
        *(_surface(problem.name, kind, facts, i) for i, kind in enumerate(config.directions)),
        verdicts.table([*facts.flatter, *facts.barriers]),
        "### Numbers at the end of stage 2",
        _numbers(arrays),
        f"Mean over seeds (least–greatest). Extreme eigenvalues by {config.lanczos} Lanczos steps: "
        f"{facts.converged[0]} of {facts.converged[1]} pairs converged to {config.tolerance:g} of "
        "the larger one; where one did not, λ_max is a lower bound and λ_min an upper one. Trace: "
        f"the mean of the spectral density, ± the standard error of the worst seed over "
        f"{config.probes} probes. Rise: over {config.coarse} × {config.coarse} points of the first "
        "plane. Minima: on the surfaces drawn, off their edge.",
        "### Attention maps at the end of stage 2",
        _maps(arrays),
        f"Medians over the {config.observed} longest test samples, layers and heads; mean over "
        "seeds (least–greatest). Entropy in nats, of rows divided by their sum; padding counts "
        "nowhere; clustering: share of pairs of final tokens with cosine above "
        f"{CLOSE:g}; condition: of the update Attn(X) and of Attn(X) + X, inf where rank is lost.",
        "### Layers and heads at the end of stage 2",
        _heads(arrays),
        f"Mean over seeds (least–greatest); softmax / Gaussian. λ_max: the largest eigenvalue of "
        "the Hessian's block on this head's matrices, or on all heads and neurons of this layer; "
        f"{int(arrays['blocks_converged'].sum())} of {arrays['blocks_converged'].size} converged. "
        "Heads have no order: head 1 of one seed is not head 1 of another.",
    ]


def _surface(name: str, kind: str, facts: Facts, plane: int) -> str:
    shares = " and ".join(f"{100 * share[plane]:.3g} %" for share in facts.outside)
    directions = {"random": "random directions", "trajectory": "principal directions of stage 2"}
    return _report.figure(
        f"surface_{name}_{kind}.png",
        f"The risk around M over {directions[kind]}, seed 1, on one scale of colours and heights. "
        "Orange: stage 2, projected onto the plane. Of the squared distance from its start to its "
        f"end up to {shares} (softmax and Gaussian, the worst seed) is not in the plane.",
    )


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
        [
            "local minima on the surfaces, seed 1",
            *(", ".join(map(str, n)) for n in arrays["minima"]),
        ],
    ]
    return _report.table(["", *(NAMES[kernel] for kernel in KERNELS)], rows)


def _maps(arrays: dict[str, Any]) -> str:
    titles = {
        "entropy": "entropy", "rank": "effective rank", "clustering": "clustering",
        "condition": "condition of Attn(X)", "condition_skip": "condition of Attn(X) + X",
    }  # fmt: skip
    # Over layers and heads where there are some: a number for each kernel and seed is left.
    rows = [
        [title, *(_spread(np.median(part.reshape(len(part), -1), axis=1)) for part in arrays[name])]
        for name, title in titles.items()
    ]
    return _report.table(["", *(NAMES[kernel] for kernel in KERNELS)], rows)


def _heads(arrays: dict[str, Any]) -> str:
    def both(values: np.ndarray) -> str:
        return " / ".join(map(_spread, values))

    rows = []
    for layer in range(arrays["layers"].shape[2]):
        rows.append([f"layer {layer + 1}", "", "", both(arrays["layers"][:, :, layer])])
        rows += [
            [f"layer {layer + 1}, head {head + 1}"]
            + [both(arrays[name][:, :, layer, head]) for name in ("entropy", "rank", "heads")]
            for head in range(arrays["heads"].shape[3])
        ]
    return _report.table(["", "entropy", "effective rank", "λ_max of the block"], rows)


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
