r"""Gradient descent on the attention layer, with the constants of its rate along the way.

    theta_{t+1} = theta_t - eta grad f(theta_t)          over the trained parameters

:func:`meanfield.theory.rate_check` says what the constants promise and whether it was kept,
:func:`meanfield.theory.ball_check` whether the run stayed in the ball of the ball test.

One trap: at step 1/beta a run takes about beta/mu steps per decade, and beta/mu of random features
is easily 1e4: choose sizes well beyond the threshold, or many steps.

References:
    Song et al. 2024, arXiv 2411.07538.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from meanfield.checks import count, positive
from meanfield.notation import Scalar
from meanfield.singular import least_of_rows
from meanfield.theory.attention_layer import (
    AttentionLayer,
    Kernel,
    attention_features,
    attention_risk,
    check_layer,
    trained_names,
)
from meanfield.theory.pl_constants import pl_constant
from meanfield.tree import squared_norm


class Descent(NamedTuple):
    """A run of gradient descent: what held before each step and after the last.

    Attributes:
        risks: f.
        slopes: |grad f|^2 over the trained parameters.
        pl: mu of the trained parameters; NaN if it was not asked for.
        sigma: sigma(B); NaN if it was not asked for.
        moved: Distance of (W^Q, W^K) from where they began.
        path: Length of the path of (W^Q, W^K).
        layer: The parameters after the last step.
    """

    risks: Float[Array, "*batch t"]
    slopes: Float[Array, "*batch t"]
    pl: Float[Array, "*batch t"]
    sigma: Float[Array, "*batch t"]
    moved: Float[Array, "*batch t"]
    path: Float[Array, "*batch t"]
    layer: AttentionLayer


def layer_descent(
    kernel: Kernel,
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    step: float | Scalar,
    steps: int,
    trained: Sequence[str] = ("value",),
    average: bool = False,
    constants: bool = True,
) -> Descent:
    """Gradient descent of fixed step; may be vmapped over problems, and over steps.

    Args:
        kernel: From queries and keys to weights.
        layer: Where it begins.
        inputs: The samples X_i.
        targets: The targets y_i.
        step: The step eta.
        steps: Their number.
        trained: The names of the trained parameters.
        average: Whether the sum over samples is divided by N.
        constants: Whether mu and sigma(B) are computed at every iterate, which costs several
            singular value decompositions each.

    Raises:
        ValueError: If sizes do not match, a value is not finite or no floating-point number, a name
            is unknown, or the step or the number of steps is not positive.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> data, options = [jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1))], {"step": 0.5, "steps": 2}
    >>> layer_descent(lambda q, k: q @ k.T, layer, *data, **options).risks.tolist()
    [0.5, 0.125, 0.03125]
    """
    names = trained_names(trained)
    check_layer(layer, inputs, targets)
    if not isinstance(step, Tracer):
        for value in np.ravel(np.asarray(step)):
            positive("step", float(value))
    count("steps", steps)
    # One precision for all, or a step would change that of the parameters.
    dtype = jnp.result_type(*layer, inputs, targets)
    *parts, inputs, targets, step = (
        jnp.asarray(each, dtype) for each in (*layer, inputs, targets, step)
    )
    return _descent(
        kernel, AttentionLayer(*parts), inputs, targets, step,
        steps=steps, names=names, average=average, constants=constants,
    )  # fmt: skip


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=("steps", "names", "average", "constants")
)
def _descent(kernel, layer, inputs, targets, step, *, steps, names, average, constants) -> Descent:
    risk = attention_risk(kernel, inputs, targets, average=average)

    def constants_at(now):
        if not constants:
            return (jnp.full((), jnp.nan, inputs.dtype),) * 2
        features = attention_features(kernel, now, inputs)
        mu = pl_constant(kernel, now, inputs, trained=names, average=average)
        return mu, least_of_rows(features.reshape(len(features), -1))

    # Where f is quadratic they do not change, and cost more than the step itself.
    fixed = constants_at(layer) if names in (("value",), ("output",)) else None

    def measured(now, path):
        value, slope = jax.value_and_grad(risk)(now)
        slope = {name: getattr(slope, name) for name in names}
        mu, sigma = fixed or constants_at(now)
        moved = jnp.sqrt(squared_norm((now.query - layer.query, now.key - layer.key)))
        return slope, (value, squared_norm(slope), mu, sigma, moved, path)

    # The step comes first, of length 0 at the start: so what is measured is compiled once.
    def advance(carry, _):
        now, slope, path = carry
        then = now._replace(**{name: getattr(now, name) - step * slope[name] for name in names})
        stride = jnp.sqrt(squared_norm((then.query - now.query, then.key - now.key)))
        slope, row = measured(then, path + stride)
        return (then, slope, path + stride), row

    still = {name: jnp.zeros_like(getattr(layer, name)) for name in names}
    start = (layer, still, jnp.zeros((), inputs.dtype))
    (last, *_), rows = jax.lax.scan(advance, start, length=steps + 1)
    risks, slopes, mu, sigma, moved, path = rows
    return Descent(risks, slopes, mu, sigma, moved, path, last)
