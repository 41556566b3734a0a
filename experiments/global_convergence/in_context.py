r"""In-context regression by attention alone: the problem on which limits are measured.

    tokens (x_1, y_1), ..., (x_n, y_n), (x, 0);    prediction: the label slot of the last token

One trap: the heads at the start are not centred. With centred outputs the drift vanishes at time
0, and with it the 1/L error of a discrete depth that is to be seen.

References:
    Gao et al. 2024, arXiv 2410.23610; Garg et al., arXiv 2208.01066.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import checks, flow, measure, nn, tasks


class Problem(NamedTuple):
    """What is trained, and what is seen of it.

    Attributes:
        model: Attention of one layer; its parameters may have any depth and width.
        law: The initial measure of a head.
        tokens: Of the training prompts [b n d].
        token_risk: The risk, from the last tokens of all prompts.
        energy: The risk with its decay.
        observe: Predictions at prompts that are not trained on, the risk, and the clouds of heads.
    """

    model: nn.Model
    law: Callable[[Any, Any], Any]
    tokens: jax.Array
    token_risk: Callable[[Any], Any]
    energy: Callable[[Any], Any]
    observe: Callable[[Any], measure.Trajectory]


def problem(
    *, prompts: int, probes: int, context: int, weight_decay: float, kappa: float, gain: float,
    mean: float,
) -> Problem:  # fmt: skip
    """The problem: covariates in the plane, heads of dimension 2, one fixed set of prompts.

    Args:
        prompts: Number of training prompts.
        probes: Number of prompts at which predictions are compared.
        context: Labelled examples in each.
        weight_decay: The constant lambda.
        kappa: The constant before a layer.
        gain: Of the heads at the start, whose entries have variance gain^2 / fan-in.
        mean: Of these entries.
    """
    train, test = (
        tasks.in_context_regression(jax.random.key(seed), number, context=context, dim=2)
        for seed, number in ((1, prompts), (2, probes))
    )
    law = nn.inits.shifted(nn.inits.scaled(gain), mean)
    heads = nn.attention(dim=3, head_dim=2, measure=law)
    model = nn.model(nn.identity(), nn.network((heads,), depth=1, kappa=kappa), nn.label_read())
    risk = flow.empirical_risk(model.apply, train.tokens, train.labels)

    def token_risk(final: jax.Array) -> jax.Array:
        return jnp.mean((final[:, -1, -1] - train.labels) ** 2) / 2

    def observe(theta: nn.Theta) -> measure.Trajectory:
        predictions = jax.vmap(model.apply, in_axes=(None, 0))(theta, test.tokens)
        return measure.Trajectory(predictions, risk(theta), measure.clouds(theta.blocks[0]))

    energy = flow.energy(risk, model.decay_scales, weight_decay=weight_decay)
    return Problem(model, law, train.tokens, token_risk, energy, observe)


def draw(model: nn.Model, coupling: str) -> Callable[[Any, int, int], nn.Theta]:
    """Parameters from (key, width, depth)."""

    def start(key: Any, width: int, depth: int) -> nn.Theta:
        deep = dataclasses.replace(model.network, depth=depth)
        return nn.Theta((), deep.init(key, width=width, coupling=coupling), ())

    return start


def draw_at_once(problem: Problem, coupling: str) -> Callable[[Any, int, int], nn.Theta]:
    """The same law by one draw for all heads, which compiles ten times faster; other numbers."""
    (block,) = problem.model.network.blocks
    one = jax.eval_shape(block.draw, jax.random.key(0))

    def start(key: Any, width: int, depth: int) -> nn.Theta:
        layers = depth if coupling == "independent" else 1
        many = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((layers, width, *leaf.shape), leaf.dtype), one
        )
        heads = problem.law(key, many)
        return nn.Theta((), (jax.tree.map(lambda leaf: _at_all(leaf, depth), heads),), ())

    return start


def repeated(thetas: Any, width: int) -> Any:
    """The same networks at a larger width: a network is the measure of its heads.

    Repeating each of them changes neither its map nor its flow, so one program serves all widths.
    """
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, width // leaf.shape[2], axis=2), thetas)


def midpoint(problem: Problem, ts: np.ndarray, *, steps: int) -> Callable[[nn.Theta], Any]:
    """Training of replicas [s l m ...] by the midpoint rule, with what is seen at times [t s ...].

    The steps are the same for every network, so their error is too, and cancels in comparisons.

    Args:
        problem: What to train.
        ts: Equidistant times.
        steps: Steps between two of them.
    """
    field = flow.gradient_field(problem.energy, problem.model.time_scales)
    step = float(ts[1] - ts[0]) / steps

    def advance(_: Any, theta: nn.Theta) -> nn.Theta:
        def moved(at: nn.Theta, length: Any) -> tuple[nn.Theta, None]:
            return jax.tree.map(lambda y, k: y + length * k, theta, field(0.0, at)), None

        # Both stages by one loop, and all times by another: field and view are compiled once.
        return jax.lax.scan(moved, theta, jnp.array([step / 2, step]))[0]

    def save(theta: nn.Theta, behind: Any) -> tuple[nn.Theta, measure.Trajectory]:
        theta = jax.lax.fori_loop(0, behind, advance, theta)
        return theta, problem.observe(theta)._replace(clouds=None)

    behind = jnp.full(len(ts), steps).at[0].set(0)
    return jax.jit(jax.vmap(lambda theta: jax.lax.scan(save, theta, behind)[1], out_axes=1))


def check_increasing(name: str, sizes: Sequence[int], /, *, least: int) -> None:
    """Nothing, if these are enough increasing counts.

    Raises:
        ValueError: Otherwise.
    """
    for size in sizes:
        checks.count(name, size)
    if len(sizes) < least or any(b <= a for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"{name} must be {least} or more increasing numbers, got {tuple(sizes)}")


def check_divides(widths: Sequence[int], common: int, /) -> None:
    """Nothing, if every width divides the common one.

    Raises:
        ValueError: Otherwise.
    """
    for width in widths:
        if common % width:
            raise ValueError(
                f"widths must divide {common}, at which one program runs them all, got {width}; "
                "choose others"
            )


def _at_all(leaf: jax.Array, depth: int) -> jax.Array:
    return jnp.broadcast_to(leaf, (depth, *leaf.shape[1:]))
