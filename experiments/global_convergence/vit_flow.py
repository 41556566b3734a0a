"""Gradient flows of one Vision Transformer from several seeds, on all images at once.

    dTheta/dtau = -s grad Q(Theta),      s = L M in the mean-field law, 1 in the others

One trap: a flow that diverged has fewer rows than there are times; they are filled with NaN, so
that a mean over seeds ends with its shortest one.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (9).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._images import Images
from experiments.global_convergence import vit_model
from experiments.global_convergence.vit_model import Cell
from meanfield import flow, nn

HEADS_EVERY = 4
"""Of so many saves, the heads themselves are kept at one."""


def times(config: Any) -> np.ndarray:
    """Times at which all is measured, closer at the start.

    Args:
        config: The configuration.
    """
    later = np.geomspace(config.horizon / 50, config.horizon, config.saves - 1)
    return np.concatenate([[0.0], later])


def train(
    config: Any, images: Images, cell: Cell, *, label: str | None, kept: Any, heads: bool = False
) -> dict[str, Any]:
    """Curves [s t] and counts [s] of one network from all seeds, and what is to be said of them.

    Args:
        config: The configuration.
        images: The images, all of which are used.
        cell: The network.
        label: What the progress is called; none if None.
        kept: Where the flows save themselves.
        heads: Whether to keep the heads themselves, at some of the times.
    """
    built = vit_model.model(config, images, cell.scaling, cell.depth)
    field, observe = _problem(config, images, built, heads=heads)
    ts, records = times(config), []
    thetas = jax.device_get(vit_model.starts(config, built, cell))
    for seed in range(config.seeds):
        name = f"{label}, seed {seed}"
        records.append(
            _flow(
                config, field, _of_seed(thetas, seed),
                observe=observe, progress=name if label else None,
                checkpoint=kept.checkpoints(f"{words(cell)}, seed {seed}"),
            )
        )  # fmt: skip
    found = {
        "loss": _rows(records, "loss", ts),
        "accuracy": 1 - _rows(records, "error", ts),
        "test_accuracy": 1 - _rows(records, "test_error", ts),
        "completed": np.array([record.result == "completed" for record in records]),
        "balance": np.array([record.worst_balance for record in records]),
        "gradients": np.array([record.statistics["gradients"] for record in records]),
        "products": np.array([record.statistics["products"] for record in records]),
        "notes": _notes(cell, records),
    }
    if heads:
        found["heads"] = [
            tuple(np.asarray(leaf)[::HEADS_EVERY] for leaf in record.observables["heads"])
            for record in records
        ]
    return found


def finer_loss(
    config: Any, images: Images, cell: Cell, *, label: str | None, kept: Any, heads: bool = False
) -> Any:
    """The training loss [t] of the first seed at a tenth of the tolerance.

    Args:
        config: The configuration.
        images: The images.
        cell: The network.
        label: What the progress is called; none if None.
        kept: Where the flow saves itself.
        heads: As of the flow that it is compared with, whose program it then shares.
    """
    built = vit_model.model(config, images, cell.scaling, cell.depth)
    field, observe = _problem(config, images, built, heads=heads)
    thetas = jax.device_get(vit_model.starts(config, built, cell))
    record = _flow(
        config, field, _of_seed(thetas, 0), observe=observe, sharper=0.1,
        progress=f"{label}, seed 0, finer" if label else None,
        checkpoint=kept.checkpoints(f"{words(cell)}, finer"),
    )  # fmt: skip
    return _rows([record], "loss", times(config))[0]


def words(cell: Cell) -> str:
    """A network in words.

    Args:
        cell: The network.

    >>> words(Cell("mean_field", 6, 40))
    'mean_field, 6 layers, 40 heads'
    """
    return f"{cell.scaling}, {cell.depth} layers, {cell.heads} heads"


def _flow(
    config: Any, field: Any, theta: nn.Theta, *, observe: Any, progress: str | None,
    checkpoint: Any, sharper: float = 1.0,
) -> flow.Record:  # fmt: skip
    return flow.gradient_flow(
        field,
        theta,
        times(config),
        rtol=config.rtol * sharper,
        atol=config.atol * sharper,
        observe=observe,
        balance_bound=config.balance_bound,
        progress=progress,
        checkpoint=checkpoint,
    )


def _of_seed(thetas: nn.Theta, at: int) -> nn.Theta:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[at]), thetas)


def _problem(
    config: Any, images: Images, built: nn.Model, *, heads: bool
) -> tuple[Any, dict[str, Any]]:
    """The field of the flow and what to observe along it."""
    risk = functools.partial(flow.empirical_risk, built.apply, chunk=config.chunk)
    train = risk(images.x_train, images.y_train, loss="cross_entropy")
    wrong = risk(images.x_train, images.y_train, loss=_is_wrong)
    wrong_test = risk(images.x_test, images.y_test, loss=_is_wrong)
    energy = flow.energy(train, built.decay_scales, weight_decay=config.weight_decay)
    field = flow.gradient_field(energy, built.time_scales)
    observe = {"loss": train, "error": wrong, "test_error": wrong_test}
    return field, observe | ({"heads": _heads} if heads else {})


def _is_wrong(logits: jax.Array, label: jax.Array) -> jax.Array:
    return (jnp.argmax(logits) != label).astype(logits.dtype)


def _heads(theta: nn.Theta) -> nn.Head:
    return theta.blocks[0]


def _rows(records: list[flow.Record], name: str, ts: np.ndarray) -> np.ndarray:
    rows = [record.observables[name] for record in records]
    return np.stack([np.concatenate([row, np.full(len(ts) - len(row), np.nan)]) for row in rows])


def _notes(cell: Cell, records: list[flow.Record]) -> list[str]:
    """What the records want said: warnings, and runs that did not complete."""
    notes = []
    for seed, record in enumerate(records):
        said = list(record.warnings)
        if record.result != "completed":
            said.insert(0, record.message)
        notes += [f"{words(cell)}, seed {seed}: {sentence}" for sentence in said]
    return notes
