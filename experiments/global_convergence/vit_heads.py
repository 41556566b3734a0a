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
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _datasets
from experiments._cli import Outcome
from experiments._together import side_by_side
from experiments.global_convergence import head_law, vit_heads_facts, vit_heads_report
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
    scaling: Literal["mean_field", "ntk", "standard"] = "mean_field"
    """Scaling law; "standard" is the plain sum over heads and layers."""
    kappa: float = 1.0
    """Constant before each half-step."""
    weight_decay: float = 1e-3
    """Constant lambda of the decay."""
    horizon: float = 2.5
    """Length of the flow, in mean-field time."""
    saves: int = 25
    """Times at which observables are saved, both ends included."""
    images: int = 128
    """Training images used, a random subset."""
    test_images: int = 355
    """Test images used."""
    chunk: int | None = None
    """Images handled at once."""
    rtol: float = 5e-3
    """Relative tolerance of a step."""
    atol: float = 5e-4
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
        checks.count("saves", self.saves, least=9)
        checks.count("seeds", self.seeds, least=2)
        for width in self.heads:
            checks.count("heads", width)
        if len(self.heads) < 4 or np.any(np.diff(self.heads) <= 0):
            raise ValueError(
                f"heads must be four or more increasing numbers, got {self.heads}: slopes need "
                "three widths below the widest"
            )


PRESETS = {
    "tiny": Config(
        heads=(2, 3, 4, 6), seeds=2, depth=2, dim=8, head_dim=2, horizon=0.5, saves=9, images=20,
        test_images=20, projections=16,
    ),
    "default": Config(),
    "paper": Config(
        heads=(4, 8, 12, 16, 20, 24, 28, 32, 36, 40), neurons_per_head=4, dim=64, head_dim=16,
        horizon=10.0, images=50_000, test_images=10_000, chunk=500, rtol=3e-3, atol=3e-4,
    ),
}  # fmt: skip


def run(config: Config, *, data: Path | None, out_dir: Path, progress: bool) -> Outcome:
    """Trains every number of heads from every seed, measures, draws and reports."""
    images = _datasets.standardised(_datasets.images(data))
    if config == PRESETS["paper"] and data is None:
        raise ValueError(
            "the paper preset needs --data with CIFAR-10, got none; "
            "the default preset runs on the digits"
        )
    model = _model(config, images)
    field, observe = _problem(config, images, model)
    ts = np.concatenate(
        [[0.0], np.geomspace(config.horizon / 50, config.horizon, config.saves - 1)]
    )
    # One embedding and one readout for all, as the head law of the limit depends on them.
    shared = model.init(jax.random.key(0), width=1)

    def train(width: int, seed: int, sharper: float = 1.0) -> flow.Record:
        particles = model.network.init(
            jax.random.key(seed + 1), width=(width, width * config.neurons_per_head)
        )
        label = f"{width:3d} heads, seed {seed}" + (", finer" if sharper < 1 else "")
        return flow.gradient_flow(
            field,
            shared._replace(blocks=particles),
            ts,
            rtol=config.rtol * sharper,
            atol=config.atol * sharper,
            observe=observe,
            balance_bound=config.balance_bound,
            progress=label if progress else None,
        )

    def train_all(width: int) -> list[flow.Record]:
        return [train(width, seed) for seed in range(config.seeds)]

    # Each number of heads compiles once; the widest takes longest.
    widest_first = config.heads[::-1]
    runs = dict(zip(widest_first, side_by_side(train_all, widest_first), strict=True))
    runs = {width: runs[width] for width in config.heads}
    finer = train(config.heads[0], 0, sharper=0.1)
    arrays = _arrays(config, runs, ts)
    arrays["finer_loss"] = _padded(finer.observables["loss"], ts)
    facts = vit_heads_facts.facts(arrays)
    vit_heads_report.draw(arrays, facts, config, out_dir)
    return Outcome(
        arrays=arrays,
        report=vit_heads_report.report(arrays, facts, config, images, _notes(runs)),
        summary=vit_heads_report.summary(arrays, facts),
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
    subset = np.random.default_rng(0).permutation(len(images.x_train))[: config.images]
    pixels, labels = images.x_train[subset], images.y_train[subset]
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


def _arrays(config: Config, runs: dict[int, list[flow.Record]], ts: np.ndarray) -> dict:
    """Curves, distances and gaps [x s t], work and balance [x s]."""

    def each(value) -> np.ndarray:
        return np.array([[value(record) for record in runs[width]] for width in runs])

    heads = {
        width: [
            jax.tree.map(
                lambda leaf: leaf[:: vit_heads_facts.HEADS_EVERY], record.observables["heads"]
            )
            for record in runs[width]
        ]
        for width in runs
    }
    clouds = {w: [np.asarray(jax.vmap(measure.clouds)(one)) for one in heads[w]] for w in heads}
    times = len(ts[:: vit_heads_facts.HEADS_EVERY])
    return {
        "heads": np.array(config.heads),
        "times": ts,
        "head_times": ts[:: vit_heads_facts.HEADS_EVERY],
        "loss": each(lambda record: _padded(record.observables["loss"], ts)),
        "accuracy": each(lambda record: 1 - _padded(record.observables["error"], ts)),
        "test_accuracy": each(lambda record: 1 - _padded(record.observables["test_error"], ts)),
        "distance": np.array(
            [
                head_law.distances(clouds, width, times=times, projections=config.projections)
                for width in config.heads
            ]
        ),
        "gap": np.array(
            [head_law.path_gaps(clouds, width, times=times) for width in config.heads[:-1]]
        ),
        "completed": each(lambda record: record.result == "completed"),
        "balance": each(lambda record: record.worst_balance),
        "gradients": each(lambda record: record.statistics["gradients"]),
        "products": each(lambda record: record.statistics["products"]),
        "clouds": {
            str(width): _strengths(heads[width], layer=config.depth // 2)
            for width in (config.heads[0], config.heads[-1])
        },
    }


def _strengths(heads: list[nn.Head], *, layer: int) -> np.ndarray:
    """Heads of one layer in two coordinates [t, s m, 2], all seeds together."""
    every = [np.asarray(head_law.strengths(one, layer=layer)) for one in heads]
    reached = min(len(one) for one in every)
    return np.concatenate([one[:reached] for one in every], axis=1)


def _padded(values: np.ndarray, ts: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.full(len(ts) - len(values), np.nan)])


def _notes(runs: dict[int, list[flow.Record]]) -> list[str]:
    """What the records want said: warnings, and runs that did not complete."""
    notes = []
    for width, row in runs.items():
        for seed, record in enumerate(row):
            said = list(record.warnings)
            if record.result != "completed":
                said.insert(0, record.message)
            notes += [f"{width} heads, seed {seed}: {sentence}" for sentence in said]
    return notes
