r"""Training loss and accuracy of a Vision Transformer against its number of heads, as a flow.

Fig. 1 of Gao et al. 2024: 6 layers, 4 to 40 heads, weight decay; more heads, lower training loss
and higher training accuracy. Here training is the gradient flow in mean-field time,

    dTheta/dtau = -L M grad Q(Theta),

on all images at once, from particles drawn i.i.d.; and the law of the heads is followed as their
number grows (:mod:`experiments.global_convergence.head_law`).

One trap: embedding and readout are no particles and never average out, so all seeds and widths
start from the same ones; a seed redraws the heads and neurons only.

References:
    Gao et al. 2024, arXiv 2410.23610, Section 5 and Fig. 1.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _datasets
from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.global_convergence import head_law, vit_heads_report
from meanfield import checks, flow, measure, nn

SUMMARY = (
    "ViT on images as a gradient flow: loss, accuracy and head law against heads (Gao, Fig. 1)."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Fig. 1 of Gao et al. as a gradient flow."""

    heads: tuple[int, ...] = (4, 8, 16, 24, 40)
    """Numbers of heads in each layer, increasing."""
    seeds: int = 3
    """Independent draws of the particles for each number of heads."""
    depth: int = 6
    """Layers."""
    neurons_per_head: int = 1
    """Feed-forward neurons for each head."""
    dim: int = 16
    """Token dimension."""
    head_dim: int = 8
    """Head dimension, the same for all numbers of heads."""
    patch: int = 4
    """Side of a patch in pixels."""
    kernel: Literal["softmax", "gaussian"] = "softmax"
    """Attention kernel."""
    bandwidth: float = 0.5
    """Bandwidth of the Gaussian kernel."""
    scaling: Literal["mean_field", "complete_p", "ntk", "standard"] = "mean_field"
    """Scaling law."""
    kappa: float = 1.0
    """Constant before each half-step."""
    weight_decay: float = 1e-3
    """Constant lambda of the decay."""
    horizon: float = 2.5
    """Length of the flow, in mean-field time."""
    saves: int = 13
    """Times at which observables are saved, both ends included."""
    images: int = 200
    """Training images used."""
    test_images: int = 355
    """Test images used."""
    chunk: int | None = None
    """Images handled at once."""
    rtol: float = 1e-2
    """Relative tolerance of a step."""
    atol: float = 1e-3
    """Absolute tolerance of a step."""
    balance_bound: float = 0.03
    """Relative residual of the energy balance above which the report warns."""
    projections: int = 256
    """Directions of the sliced Wasserstein distance."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in ("depth", "neurons_per_head", "dim", "head_dim", "patch", "images"):
            checks.count(name, getattr(self, name))
        for name in ("test_images", "projections"):
            checks.count(name, getattr(self, name))
        for name in ("bandwidth", "horizon", "rtol", "atol", "balance_bound"):
            checks.positive(name, getattr(self, name))
        checks.non_negative("weight_decay", self.weight_decay)
        checks.non_negative("kappa", self.kappa)
        checks.count("saves", self.saves, least=5)
        checks.count("seeds", self.seeds)
        if self.seeds == 1:
            raise ValueError(
                "seeds must be >= 2, got 1: distances are measured between independent draws"
            )
        for width in self.heads:
            checks.count("heads", width)
        if len(self.heads) < 3 or np.any(np.diff(self.heads) <= 0):
            raise ValueError(
                f"heads must be at least three increasing numbers, got {self.heads}: "
                "a slope needs three points"
            )


PRESETS = {
    "tiny": Config(
        heads=(2, 3, 4), seeds=2, depth=2, dim=8, head_dim=2, horizon=0.5, saves=5, images=20,
        test_images=20, projections=16,
    ),
    "default": Config(),
    "paper": Config(
        heads=(4, 8, 12, 16, 20, 24, 28, 32, 36, 40), neurons_per_head=4, dim=64, head_dim=16,
        horizon=10.0, images=50_000, test_images=10_000, chunk=500, rtol=3e-3, atol=3e-4,
    ),
}  # fmt: skip


class Run(NamedTuple):
    """One width and one seed: the record of its flow and the wall time."""

    record: flow.Record
    seconds: float


def run(config: Config, *, data: Path | None, out_dir: Path, progress: bool) -> Outcome:
    """Trains every number of heads from every seed, measures, draws and reports."""
    images = _datasets.standardised(_datasets.images(data))
    model = _model(config, images)
    field, observe = _problem(config, images, model)
    ts = np.concatenate(
        [[0.0], np.geomspace(config.horizon / 16, config.horizon, config.saves - 1)]
    )
    # One embedding and one readout for all, as the head law of the limit depends on them.
    shared = model.init(jax.random.key(0), width=1)

    def train(width: int) -> list[Run]:
        row = []
        for seed in range(config.seeds):
            particles = model.network.init(
                jax.random.key(seed + 1), width=(width, width * config.neurons_per_head)
            )
            start = time.perf_counter()
            record = flow.gradient_flow(
                field,
                shared._replace(blocks=particles),
                ts,
                rtol=config.rtol,
                atol=config.atol,
                observe=observe,
                balance_bound=config.balance_bound,
                progress=f"{width:3d} heads, seed {seed}" if progress else None,
            )
            row.append(Run(record, time.perf_counter() - start))
        return row

    # Each number of heads compiles once; the widest takes longest.
    widest_first = config.heads[::-1]
    runs = dict(zip(widest_first, side_by_side(train, widest_first), strict=True))
    runs = {width: runs[width] for width in config.heads}
    arrays = _arrays(config, runs, ts)
    facts = vit_heads_report.draw(arrays, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=vit_heads_report.report(arrays, facts, config, images, _notes(runs)),
        summary=vit_heads_report.summary(arrays, facts, config),
        data_checksums={images.name: images.sha256},
        seeds=list(range(1, config.seeds + 1)),
    )


def _model(config: Config, images: _datasets.Images) -> nn.Model:
    kernels = {"softmax": nn.softmax, "gaussian": lambda: nn.gaussian(config.bandwidth)}
    network = nn.network(
        (
            nn.attention(dim=config.dim, head_dim=config.head_dim, kernel=kernels[config.kernel]()),
            nn.mlp(dim=config.dim, activation=jax.nn.relu),
        ),
        depth=config.depth,
        scaling=nn.scaling.LAWS[config.scaling](),
        kappa=config.kappa,
    )
    classes = int(max(images.y_train.max(), images.y_test.max())) + 1
    return nn.model(
        nn.patches(shape=images.x_train.shape[1:], patch=config.patch, dim=config.dim),
        network,
        nn.class_read(dim=config.dim, classes=classes),
    )


def _problem(config: Config, images: _datasets.Images, model: nn.Model):
    """The field of the flow and what to observe along it."""
    pixels, labels = images.x_train[: config.images], images.y_train[: config.images]
    risk = functools.partial(flow.empirical_risk, model.apply, chunk=config.chunk)
    train = risk(pixels, labels, loss="cross_entropy")
    wrong = risk(pixels, labels, loss=_is_wrong)
    wrong_test = risk(
        images.x_test[: config.test_images], images.y_test[: config.test_images], loss=_is_wrong
    )
    energy = flow.energy(train, model.decay_scales, weight_decay=config.weight_decay)
    field = flow.gradient_field(energy, model.time_scales)
    return field, {"loss": train, "error": wrong, "test_error": wrong_test, "heads": _heads}


def _is_wrong(logits: jax.Array, label: jax.Array) -> jax.Array:
    return (jnp.argmax(logits) != label).astype(logits.dtype)


def _heads(theta: nn.Theta) -> nn.Head:
    return theta.blocks[0]


def _arrays(config: Config, runs: dict[int, list[Run]], ts: np.ndarray) -> dict:
    """Curves [x s t], distances [x s t] to the widest networks of the other seeds, work."""

    def curves(name: str) -> np.ndarray:
        rows = [[_padded(run.record.observables[name], ts) for run in runs[w]] for w in runs]
        return np.array(rows)

    clouds = {width: _clouds(runs[width]) for width in runs}
    distances = functools.partial(
        head_law.distances, clouds, times=len(ts), projections=config.projections
    )
    balance = [[run.record.worst_balance for run in runs[width]] for width in runs]
    return {
        "heads": np.array(config.heads),
        "times": ts,
        "loss": curves("loss"),
        "accuracy": 1 - curves("error"),
        "test_accuracy": 1 - curves("test_error"),
        "distance": np.array([distances(width) for width in config.heads]),
        "balance": np.array(balance),
        "gradients": np.array(
            [[run.record.statistics["evaluations"] for run in runs[width]] for width in runs]
        ),
        "products": np.array(
            [[run.record.statistics["products"] for run in runs[width]] for width in runs]
        ),
        "seconds": np.array([[run.seconds for run in runs[width]] for width in runs]),
        "clouds": head_law.projected(clouds, layer=config.depth // 2),
    }


def _clouds(row: list[Run]) -> list[np.ndarray]:
    return [np.asarray(jax.vmap(measure.clouds)(run.record.observables["heads"])) for run in row]


def _padded(values: np.ndarray, ts: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.full(len(ts) - len(values), np.nan)])


def _notes(runs: dict[int, list[Run]]) -> list[str]:
    """What the records want said: warnings, and runs that did not complete."""
    notes = []
    for width, row in runs.items():
        for seed, one in enumerate(row):
            said = list(one.record.warnings)
            if one.record.result != "completed":
                said.insert(0, one.record.message)
            notes += [f"{width} heads, seed {seed}: {sentence}" for sentence in said]
    return notes
