r"""The landscape of the risk under softmax and Gaussian attention, after training in two stages.

    stage 1    everything trains under softmax, to theta_1
    stage 2    training goes on from theta_1 under either kernel, to M_softmax and M_gaussian
    surface    R(M + a d_1 + b d_2),    a, b in [-span, span], the same d_1, d_2 for both kernels

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
from typing import Literal

from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.attention_kernels import (
    landscape_facts,
    landscape_figures,
    landscape_report,
    landscape_stages,
    landscape_terrain,
)
from experiments.attention_kernels.training import KERNELS
from meanfield import checks

SUMMARY = "The landscape of the risk around both kernels' ends after two stages (Song, Fig. 4)."

COUNTS = (
    "depth", "dim", "heads", "head_dim", "neurons", "batch", "measured", "length", "reviews",
    "images", "size", "patch", "dashes", "spread", "lanczos", "observed",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Two stages of training on each task, and what is measured at the end."""

    tasks: tuple[str, ...] = ("text", "pathfinder")
    """Tasks: synthetic byte sentiment by SGD, generated Pathfinder images by Adam."""
    seeds: int = 3
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
    stage_one: int = 600
    """Steps of stage 1, under softmax."""
    stage_two: int = 600
    """Steps of stage 2, under either kernel."""
    saves: int = 21
    """Times of each stage at which losses and parameters are kept, both ends included."""
    text_rate: float = 0.1
    """Learning rate of SGD on text."""
    pathfinder_rate: float = 1e-3
    """Learning rate of Adam on Pathfinder."""
    batch: int = 16
    """Samples of a step."""
    chunk: int | None = None
    """Samples handled at once; sets memory and nothing else."""
    length: int = 96
    """Bytes of a review."""
    reviews: int = 2000
    """Training reviews."""
    images: int = 8000
    """Training images."""
    size: int = 16
    """Side of an image."""
    tokens: Literal["patches", "grey_values"] = "patches"
    """Tokens of an image: square patches, or single pixels of 256 grey values."""
    patch: int = 8
    """Side of a patch."""
    dashes: int = 2
    """Dashes of each path."""
    distractors: int | None = 0
    """Distractor paths, None for the published 0 to 5."""
    spread: int = 3
    """Distance of the two paths' first ends."""
    measured: int = 96
    """Training samples of the risk whose landscape is looked at."""
    directions: Literal["random", "trajectory"] = "random"
    """Directions: random and filter-normalised, or principal ones of stage 2."""
    direction_seed: int = 0
    """Seed of directions and probes."""
    points: int = 41
    """Points of the surface along each direction, for the first seed."""
    coarse: int = 9
    """Points along each direction for the mean rise, for every seed."""
    span: float = 1.0
    """Greatest |a| and |b|."""
    between: int = 24
    """Intervals on the way between two points."""
    lanczos: int = 32
    """Steps for the extreme eigenvalues."""
    tolerance: float = 1e-2
    """Residual of an eigenvalue, in parts of the larger one, up to which it has converged."""
    probes: int = 10
    """Probes of the trace."""
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
        for name in ("stage_one", "stage_two"):
            if checks.count(name, getattr(self, name)) % (self.saves - 1):
                raise ValueError(
                    f"{name} must be a multiple of saves - 1 = {self.saves - 1}, "
                    f"got {getattr(self, name)}"
                )
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be one or more different ones, got {self.tasks}")
        for name in self.tasks:
            checks.choice("task", name, landscape_stages.TASKS)


PRESETS = {
    "tiny": Config(
        tasks=("text",), seeds=2, dim=8, head_dim=4, neurons=8, depth=1, stage_one=4, stage_two=4,
        saves=3, batch=8, length=32, reviews=40, images=40, patch=4, dashes=3,
        measured=16, points=5, coarse=5, lanczos=8, probes=2, observed=4,
    ),
    "default": Config(),
    "paper": Config(
        dim=64, head_dim=32, neurons=128, stage_one=25_000, stage_two=25_000, batch=32, chunk=16,
        length=4000, reviews=25_000, images=160_000, tokens="grey_values", size=32, spread=7,
        dashes=14, distractors=None, pathfinder_rate=2e-4, measured=512, coarse=11, lanczos=64,
        probes=32, observed=2,
    ),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Trains in two stages on each task, looks at the landscape, draws and reports."""
    problems = [landscape_stages.problem(config, name) for name in config.tasks]
    stages = side_by_side(
        lambda problem: landscape_stages.two_stages(config, problem, progress=progress), problems
    )
    items = [(p, s, kernel) for p, s in zip(problems, stages, strict=True) for kernel in KERNELS]
    terrains = side_by_side(lambda item: landscape_terrain.terrain(config, *item), items)
    arrays = {}
    for place, (problem, found) in enumerate(zip(problems, stages, strict=True)):
        both = terrains[place * len(KERNELS) : (place + 1) * len(KERNELS)]
        arrays[problem.name] = found.curves | landscape_terrain.together(both)
    facts = {name: landscape_facts.facts(arrays[name]) for name in config.tasks}
    for name in config.tasks:
        landscape_figures.draw_surfaces(arrays[name], out_dir / f"surface_{name}.png")
    landscape_figures.draw_paths(arrays, out_dir / "paths.png")
    return Outcome(
        arrays=arrays,
        report=landscape_report.report(arrays, facts, config, problems),
        summary=landscape_report.summary(facts),
        data_checksums={key: value for p in problems for key, value in p.checksums.items()},
        seeds=list(range(1, config.seeds + 1)),
    )
