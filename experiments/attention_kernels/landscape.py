r"""The landscape of the risk under softmax and Gaussian attention, after training in two stages.

    stage 1    everything trains under softmax, to theta_1
    stage 2    training goes on from theta_1 under either kernel, to M_softmax and M_gaussian
    surface    R(M + a d_1 + b d_2),    a, b in [-span, span], the same d_1, d_2 for both kernels
    spectrum   of the Hessian of R at M, of the whole and of each layer and head

Song et al. 2024, Figure 4: is the landscape flatter under the Gaussian kernel, with less of a
barrier? Model and tasks are those of ``text`` and ``pathfinder``; R is the training loss of the
stage's own kernel on ``measured`` samples.

One trap: two numbers of curvature compare two kernels at two points with two losses. A kernel may
be sharper only because it trained further; the report holds the losses beside the curvature.

References:
    Song et al. 2024, arXiv 2411.07538, Figure 4; Li et al. 2018, arXiv 1712.09913 (directions).
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.attention_kernels import (
    landscape_facts,
    landscape_figures,
    landscape_problems,
    landscape_report,
    landscape_stages,
    landscape_terrain,
)
from experiments.attention_kernels.training import KERNELS
from meanfield import checks
from meanfield.kept import NOTHING, Kept

SUMMARY = "The landscape of the risk around both kernels' ends after two stages (Song, Fig. 4)."

COUNTS = (
    "depth", "dim", "heads", "head_dim", "neurons", "text_batch", "pathfinder_batch", "measured",
    "length", "reviews", "images", "size", "patch", "dashes", "spread", "lanczos", "observed",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Two stages of training on each task, and what is measured at the end."""

    tasks: tuple[str, ...] = ("text", "pathfinder")
    """Tasks: reviews by SGD, Pathfinder images by Adam; generated, but for what --data holds."""
    seeds: int = 5
    """Independent initial parameters, orders of the data and directions."""
    depth: int = 2
    """Layers."""
    dim: int = 32
    """Token dimension."""
    heads: int = 2
    """Heads of each layer."""
    head_dim: int = 16
    """Head dimension."""
    neurons: int = 64
    """Feed-forward neurons of each layer."""
    bandwidth: float = 0.5
    """Bandwidth c of the Gaussian kernel."""
    normalize: bool = False
    """Whether rows of the Gaussian kernel are divided by their sum."""
    text_steps: int = 600
    """Steps of each of the two stages on text."""
    pathfinder_steps: int = 2000
    """Steps of each of the two stages on Pathfinder."""
    saves: int = 21
    """Times of each stage at which losses and parameters are kept, both ends included."""
    text_rate: float = 0.1
    """Learning rate of SGD on text."""
    pathfinder_rate: float = 1e-3
    """Learning rate of Adam on Pathfinder."""
    text_batch: int = 16
    """Reviews of a step."""
    pathfinder_batch: int = 64
    """Images of a step."""
    chunk: int | None = None
    """Samples handled at once; sets memory and speed and nothing else."""
    length: int = 96
    """Bytes of a review."""
    reviews: int = 2000
    """Training reviews, at most."""
    images: int = 8000
    """Training images, at most."""
    size: int = 16
    """Side of a generated image."""
    tokens: Literal["patches", "grey_values"] = "patches"
    """Tokens of an image: square patches, or single pixels of 256 grey values."""
    patch: int = 8
    """Side of a patch."""
    dashes: int = 2
    """Dashes of each generated path."""
    distractors: int | None = 0
    """Distractor paths of a generated image, None for the published 0 to 5."""
    spread: int = 3
    """Distance of the two generated paths' first ends."""
    measured: int = 64
    """Training samples of the risk whose landscape is looked at."""
    directions: tuple[Literal["random", "trajectory"], ...] = ("random", "trajectory")
    """Planes: random and filter-normalised directions, principal ones of stage 2, or both."""
    direction_seed: int = 0
    """Seed of directions and probes."""
    points: int = 41
    """Points of the surface along each direction, for the first seed."""
    coarse: int = 9
    """Points along each direction of the first plane for the mean rise, for every seed."""
    span: float = 1.0
    """Greatest |a| and |b|."""
    between: int = 24
    """Intervals on the way between two points."""
    lanczos: int = 24
    """Steps for extreme eigenvalues and spectral density, of the whole and of every block."""
    tolerance: float = 1e-2
    """Residual of an eigenvalue, in parts of the larger one, up to which it has converged."""
    probes: int = 5
    """Probes of the spectral density, whose mean is the trace."""
    observed: int = 16
    """Test samples whose attention maps are looked at."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in COUNTS:
            checks.count(name, getattr(self, name))
        for name in ("bandwidth", "text_rate", "pathfinder_rate", "span", "tolerance"):
            checks.positive(name, getattr(self, name))
        for name in ("seeds", "between", "probes", "coarse", "points"):
            checks.count(name, getattr(self, name), least=2)
        checks.count("saves", self.saves, least=3)
        for name in ("text_steps", "pathfinder_steps"):
            if checks.count(name, getattr(self, name)) % (self.saves - 1):
                raise ValueError(
                    f"{name} must be a multiple of saves - 1 = {self.saves - 1}, "
                    f"got {getattr(self, name)}"
                )
        kinds = ("random", "trajectory")
        for name, options in (("tasks", landscape_problems.TASKS), ("directions", kinds)):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ValueError(f"{name} must be one or more different ones, got {given}")
            for one in given:
                checks.choice(name, one, options)


PRESETS = {
    "tiny": Config(
        tasks=("text",), seeds=2, dim=8, head_dim=4, neurons=8, depth=1, text_steps=4,
        pathfinder_steps=4, saves=3, text_batch=8, pathfinder_batch=8, length=32, reviews=40,
        images=40, patch=4, dashes=3, measured=16, chunk=16, points=5, coarse=5, lanczos=8,
        probes=2, observed=4,
    ),
    "default": Config(),
    "paper": Config(
        dim=64, head_dim=32, neurons=128, text_steps=25_000, pathfinder_steps=25_000,
        text_batch=32, pathfinder_batch=128, chunk=16,
        length=4000, reviews=25_000, images=160_000, tokens="grey_values", size=32, spread=7,
        dashes=14, distractors=None, pathfinder_rate=2e-4, measured=512, coarse=11, lanczos=64,
        probes=10, observed=2,
    ),
}  # fmt: skip


def run(
    config: Config,
    *,
    data: Path | None,
    out_dir: Path,
    progress: bool,
    kept: Kept = NOTHING,
) -> Outcome:
    """Trains in two stages on each task, looks at the landscape, draws and reports."""
    found = landscape_problems.sources(data, config.tasks)
    problems = [landscape_problems.problem(config, name, found.get(name)) for name in config.tasks]
    checksums = {key: value for p in problems for key, value in p.checksums.items()}
    kept.same("data", checksums)
    stages = side_by_side(
        lambda problem: landscape_stages.two_stages(config, problem, kept, progress=progress),
        problems,
        keep=kept.members("stages"),
    )
    items = [(p, s, kernel) for p, s in zip(problems, stages, strict=True) for kernel in KERNELS]
    terrains = side_by_side(
        lambda item: landscape_terrain.terrain(config, *item),
        items,
        keep=kept.members("terrain"),
        label="terrains" if progress else None,
    )
    arrays = {}
    for place, (problem, trained) in enumerate(zip(problems, stages, strict=True)):
        both = terrains[place * len(KERNELS) : (place + 1) * len(KERNELS)]
        arrays[problem.name] = trained.curves | landscape_terrain.together(both)
    facts = {
        name: landscape_facts.facts(arrays[name], tasks=len(config.tasks)) for name in config.tasks
    }
    draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=landscape_report.report(arrays, facts, config, problems),
        summary=landscape_report.summary(facts),
        data_checksums=checksums,
        seeds=list(range(1, config.seeds + 1)),
    )


def draw(arrays: dict[str, Any], config: Config, out_dir: Path) -> None:
    """Draws all figures from the record and the configuration alone."""
    # A record has names in the order of the alphabet, a report in that of the configuration.
    tasks = {name: arrays[name] for name in config.tasks}
    landscape_figures.draw(tasks, config.directions, out_dir)
