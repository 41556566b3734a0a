r"""Vision Transformers of several sizes on one set of images: choices, images, networks, starts.

    T <- T + kappa depth_factor(L) width_factor(M) sum_j f(T, theta_j)

in one parametrisation or several side by side. In the mean-field one particles are drawn from one
law whatever their number. In the standard one the sum is plain, so what a particle writes starts
smaller by 1/sqrt(M): the fan-in initialisation of every framework.

One trap: embedding and readout are no particles and never average out, so all seeds, sizes and
parametrisations start from the same ones; a seed redraws the heads and neurons only.

References:
    Gao et al. 2024, arXiv 2410.23610, Section 5.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._images import Images
from meanfield import checks, nn

SIZES = (
    *("neurons_per_head", "dim", "head_dim", "patch", "images", "test_images", "batch", "epochs"),
    "measured",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The fields that both experiments share; each sets its own defaults."""

    seeds: int = 3
    """Independent draws of the particles for each network."""
    neurons_per_head: int = 1
    """Feed-forward neurons for each head."""
    dim: int = 16
    """Token dimension."""
    head_dim: int = 8
    """Head dimension, the same for all networks."""
    patch: int = 4
    """Side of a patch in pixels."""
    kernel: Literal["softmax", "gaussian"] = "softmax"
    """Attention kernel."""
    bandwidth: float = 0.5
    """Bandwidth of the Gaussian kernel."""
    scalings: tuple[Literal["mean_field", "ntk", "standard"], ...] = ("mean_field",)
    """Scaling laws, side by side; "standard" is the plain sum over heads and layers."""
    kappa: float = 1.0
    """Constant before each half-step."""
    weight_decay: float = 1e-3
    """Constant lambda of the decay."""
    images: int = 128
    """Training images used, a random subset."""
    test_images: int = 355
    """Test images used."""
    saves: int = 25
    """Times at which all is measured, both ends included."""
    chunk: int | None = None
    """Images handled at once."""
    training: Literal["flow", "sgd", "adam"] = "flow"
    """The gradient flow on all images at once, or steps on minibatches."""
    horizon: float = 2.5
    """Flow: its length, in the law's time."""
    rtol: float = 5e-3
    """Flow: relative tolerance of a step."""
    atol: float = 5e-4
    """Flow: absolute tolerance of a step."""
    balance_bound: float = 0.03
    """Flow: relative residual of the energy balance above which the report warns."""
    learning_rates: tuple[float, ...] = (3e-3,)
    """Minibatches: greatest learning rate of each law in turn, or one for all."""
    batch: int = 64
    """Minibatches: images of a step."""
    epochs: int = 20
    """Minibatches: times that each image is seen."""
    warmup: float = 0.05
    """Minibatches: share of the steps over which the learning rate rises; then it falls to 0."""
    flips: bool = False
    """Minibatches: whether images are seen in a mirror half of the time."""
    measured: int = 1000
    """Minibatches: training images on which training loss and accuracy are measured."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in SIZES:
            checks.count(name, getattr(self, name))
        for name in ("bandwidth", "horizon", "rtol", "atol", "balance_bound"):
            checks.positive(name, getattr(self, name))
        checks.non_negative("weight_decay", self.weight_decay)
        checks.non_negative("kappa", self.kappa)
        checks.count("seeds", self.seeds, least=2)
        checks.count("saves", self.saves, least=9 if self.training == "flow" else 3)
        checks.count("chunk", self.chunk if self.chunk is not None else 1)
        if not self.scalings or len(set(self.scalings)) < len(self.scalings):
            raise ValueError(f"scalings must be one law or several different, got {self.scalings}")
        for rate in self.learning_rates:
            checks.positive("learning_rates", rate)
        if len(self.learning_rates) not in (1, len(self.scalings)):
            raise ValueError(
                f"learning_rates must be one number, or one for each of {len(self.scalings)} "
                f"scalings, got {len(self.learning_rates)}"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup}")
        if self.flips and self.training == "flow":
            raise ValueError("flips need minibatches, --training sgd or adam: a flow has one risk")
        if self.training != "flow":
            _check_batch(self, self.images)

    @property
    def steps(self) -> int:
        """Steps on minibatches in all; what is left of an epoch after whole ones is left out."""
        return self.epochs * (self.images // self.batch)


class Cell(NamedTuple):
    """One network of a scan: its law, layers, heads in each, and how they are drawn over depth."""

    scaling: str
    depth: int
    heads: int
    coupling: str = "independent"


def used(config: Any, images: Images) -> tuple[Any, Images]:
    """The images that a run uses, and the configuration with as many as there are.

    Args:
        config: The configuration.
        images: All images.

    Raises:
        ValueError: If they are too few for a batch, or flips would make other signs of them.
    """
    if config.flips and images.name.startswith("scikit-learn digits"):
        raise ValueError(
            "flips must be off on the digits, whose mirror images are no digits: name images of "
            "your own with --data"
        )
    chosen = np.random.default_rng(0).permutation(len(images.x_train))[: config.images]
    if config.training != "flow":
        _check_batch(config, len(chosen))
    images = images._replace(
        x_train=images.x_train[chosen],
        y_train=images.y_train[chosen],
        x_test=images.x_test[: config.test_images],
        y_test=images.y_test[: config.test_images],
    )
    return dataclasses.replace(config, images=len(chosen)), images


def model(config: Any, images: Images, scaling: str, depth: int) -> nn.Model:
    """The network, with embedding and readout, of one scaling law and depth.

    Args:
        config: The configuration.
        images: What it sees; their labels number its outputs.
        scaling: Name of the law.
        depth: Its layers.

    Raises:
        ValueError: If the patch does not divide the images.
    """
    shape = images.x_train.shape[1:]
    classes = int(max(images.y_train.max(), images.y_test.max())) + 1
    sizes = (config.dim, config.head_dim, config.patch, classes)
    kernel = (config.kernel, config.bandwidth)
    return _model(shape, sizes, kernel, scaling=scaling, depth=depth, kappa=config.kappa)


# Equal networks are one object: what was compiled for it is found again.
@functools.lru_cache(maxsize=64)
def _model(
    shape: tuple[int, int, int], sizes: tuple[int, int, int, int], kernel: tuple[str, float], *,
    scaling: str, depth: int, kappa: float,
) -> nn.Model:  # fmt: skip
    dim, head_dim, patch, classes = sizes
    weights = nn.softmax() if kernel[0] == "softmax" else nn.gaussian(kernel[1])
    network = nn.network(
        (
            nn.attention(dim=dim, head_dim=head_dim, kernel=weights),
            nn.mlp(dim=dim, activation=jax.nn.relu),
        ),
        depth=depth,
        scaling=nn.scaling.LAWS[scaling](),
        kappa=kappa,
    )
    return nn.model(
        nn.patches(shape=shape, patch=patch, dim=dim),
        network,
        nn.class_read(dim=dim, classes=classes),
    )


def start(config: Any, built: nn.Model, cell: Cell, seed: Any) -> nn.Theta:
    """Initial parameters of one seed.

    Args:
        config: The configuration.
        built: The network.
        cell: Which it is.
        seed: Seed of the particles, from 1 on; 0 drew what all share.
    """
    shared = built.init(jax.random.key(0), width=1)
    heads, neurons = built.network.init(
        jax.random.key(seed),
        width=(cell.heads, cell.heads * config.neurons_per_head),
        coupling=cell.coupling,
    )
    if cell.scaling == "standard":
        heads = heads._replace(output=heads.output * cell.heads**-0.5)
        count = cell.heads * config.neurons_per_head
        neurons = neurons._replace(weight_out=neurons.weight_out * count**-0.5)
    return shared._replace(blocks=(heads, neurons))


def starts(config: Any, built: nn.Model, cell: Cell) -> nn.Theta:
    """Initial parameters of all seeds, along the leading axis.

    Args:
        config: The configuration.
        built: The network.
        cell: Which it is.
    """
    return _drawing(config, built, cell)(jnp.arange(1, config.seeds + 1))


# One program for all draws of a network.
@functools.lru_cache(maxsize=8)
def _drawing(config: Any, built: nn.Model, cell: Cell) -> Callable[[Any], nn.Theta]:
    return jax.jit(jax.vmap(functools.partial(start, config, built, cell)))


def _check_batch(config: Any, images: int) -> None:
    if config.batch > images:
        raise ValueError(f"batch must be at most the {images} training images, got {config.batch}")
    steps = config.epochs * (images // config.batch)
    if steps < config.saves - 1:
        raise ValueError(
            f"saves must be at most the {steps} steps and one more, got {config.saves}: take more "
            "epochs or a smaller batch"
        )
