r"""The constants of a linear rate: PL constant, smoothness, step and over-parameterisation.

With E the residual, s = 1 (or 1/N), sigma the least singular value of the *rows* of a matrix (0 if
it has more rows than columns), gradient descent of step eta <= 1/beta has

    |grad f|^2 >= 2 mu f       and so       f_t <= (1 - eta mu)^t f_0,

    W^V      mu = s sigma(B)^2 min_h sigma(W_h^O')^2     needs HD >= Nn and k >= c
    W^O      mu = s sigma(A)^2                           needs Hk >= Nn
    W^Q      mu = s sigma(X)^2 min_ia sigma(P_ia)^2      needs  D >= nN and Hk >= c
    W^K      mu = s sigma(X)^2 min_i  sigma(L_i)^2       needs  D >= nN and Hk >= c

with X the stacked tokens (Nn x D), P_ia and L_i the derivatives of outputs in the query of token a
and in all keys of sample i. Sizes are necessary: with them mu is positive but where a matrix falls
short of full row rank (one that softmax, blind to a common shift of its keys, has for W^K only if
(n - 1)Hk >= nc). For several parameters together the constants add up. Smoothness is a
theorem where f is quadratic, beta = s sigma_max(B)^2 max_h |W_h^O|^2 for W^V alone and
s sigma_max(A)^2 for W^O alone; for all else it is the largest eigenvalue of the Hessian *at this
point*: whether a step is then short enough is checked along the way (:func:`rate_check`).

One trap: the least singular value of B that :func:`numpy.linalg.svd` gives is the Nn-th only if
HD >= Nn; below that B has no full row rank and mu = 0, however large the last one is.

References:
    Song et al. 2024, arXiv 2411.07538. Its smoothness has the sum over h of |W_h^O|^2; the largest
    is enough, because the heads' changes are stacked.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from meanfield.notation import Scalar
from meanfield.singular import eigenvalues, least_of_rows, singular_values, spectral_norm
from meanfield.theory.attention_layer import (
    AttentionLayer,
    Kernel,
    attention_features,
    attention_risk,
    check_layer,
    head_outputs,
    risk_share,
    trained_names,
)
from meanfield.theory.pl_constants import pl_constant


class RateConstants(NamedTuple):
    """The constants at one point; every leaf may have axes of problems in front.

    Attributes:
        risk: f.
        singular_values: Of B, from large to small.
        rank: Of B, to round-off.
        sigma: sigma(B), the least singular value of the rows of B; 0 if HD < Nn, or to round-off.
        pl: mu of the trained parameters; 0 if no matrix behind it has full row rank.
        smoothness: beta of the trained parameters.
        step: 1 / beta: admissible for W^V or W^O alone, elsewhere to be checked along the way.
    """

    risk: Scalar
    singular_values: Float[Array, "r"]
    rank: Int[Array, ""]
    sigma: Scalar
    pl: Scalar
    smoothness: Scalar
    step: Scalar


class SizeTests(NamedTuple):
    """Over-parameterisation: which sizes allow which constant to be positive.

    Attributes:
        value: HD >= Nn and k >= c: W^V alone fits any targets if B has full row rank.
        output: Hk >= Nn: so does W^O alone if A has.
        query: D >= nN and Hk >= c: W^Q alone is pushed on wherever X and all P_ia have.
        ratios: HD/(Nn), Hk/(Nn) and D/(nN).
    """

    value: bool
    output: bool
    query: bool
    ratios: tuple[float, float, float]


def size_tests(layer: AttentionLayer, inputs: Float[Array, "b n d"], /) -> SizeTests:
    """The over-parameterisation tests.

    Args:
        layer: Parameters.
        inputs: The samples X_i.

    Raises:
        ValueError: If sizes do not match.

    >>> layer = AttentionLayer(*[jnp.ones((2, 3, 1))] * 3, jnp.ones((2, 1, 1)))
    >>> size_tests(layer, jnp.ones((2, 2, 3)))
    SizeTests(value=True, output=False, query=False, ratios=(1.5, 0.5, 0.75))
    """
    check_layer(layer, inputs)
    heads, dim, size = layer.value.shape
    rows, outputs = inputs.shape[0] * inputs.shape[1], layer.output.shape[2]
    keys = heads * layer.query.shape[2]
    return SizeTests(
        value=heads * dim >= rows and size >= outputs,
        output=heads * size >= rows,
        query=dim >= rows and keys >= outputs,
        ratios=(heads * dim / rows, heads * size / rows, dim / rows),
    )


def rate_constants(
    kernel: Kernel,
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    trained: Sequence[str] = ("value",),
    average: bool = False,
) -> RateConstants:
    """The constants of a linear rate at one point; may be vmapped over problems.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.
        targets: The targets y_i.
        trained: The names of the trained parameters.
        average: Whether the sum over samples is divided by N.

    Raises:
        ValueError: If sizes do not match, a value is not finite, or a name is unknown.

    References:
        Song et al. 2024, arXiv 2411.07538.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> found = rate_constants(lambda q, k: q @ k.T, layer, *[jnp.full((1, 1, 1), 2.0)] * 2)
    >>> float(found.pl), float(found.smoothness), float(found.risk)
    (64.0, 64.0, 18.0)
    """
    names = trained_names(trained)
    check_layer(layer, inputs, targets)
    return _rate_constants(kernel, layer, inputs, targets, names=names, average=average)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("names", "average"))
def _rate_constants(kernel, layer, inputs, targets, *, names, average) -> RateConstants:
    stacked = attention_features(kernel, layer, inputs)
    features = stacked.reshape(len(stacked), -1)
    values = singular_values(features)
    beta = smoothness(kernel, layer, inputs, targets, trained=names, average=average)
    cut = jnp.finfo(values.dtype).eps * max(features.shape)
    return RateConstants(
        risk=attention_risk(kernel, inputs, targets, average=average)(layer),
        singular_values=values,
        rank=jnp.sum(values > cut * values[0]),
        sigma=least_of_rows(features),
        pl=pl_constant(kernel, layer, inputs, trained=names, average=average),
        smoothness=beta,
        step=1 / beta,
    )


def smoothness(
    kernel: Kernel,
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    trained: Sequence[str] = ("value",),
    average: bool = False,
) -> Scalar:
    """The constant beta: of f everywhere for W^V or W^O alone, of f at this point for all else.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.
        targets: The targets y_i.
        trained: The names of the trained parameters.
        average: Whether the sum over samples is divided by N.

    Returns:
        The bound of the Hessian's eigenvalues, or the largest of them in absolute value.

    Raises:
        ValueError: As :func:`rate_constants`.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> data = [jnp.full((1, 1, 1), 2.0)] * 2
    >>> float(smoothness(lambda q, k: q @ k.T, layer, *data, trained=["query"]))
    64.0
    """
    names = trained_names(trained)
    check_layer(layer, inputs, targets)
    return _smoothness(kernel, layer, inputs, targets, names=names, average=average)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("names", "average"))
def _smoothness(kernel, layer, inputs, targets, *, names, average) -> Scalar:
    share = risk_share(inputs, average=average)
    if names == ("value",):
        features = attention_features(kernel, layer, inputs)
        inner, outer = (
            spectral_norm(features.reshape(len(features), -1)),
            jnp.max(spectral_norm(layer.output)),
        )
        return share * (inner * outer) ** 2
    if names == ("output",):
        parts = head_outputs(kernel, layer, inputs)
        return share * spectral_norm(parts.reshape(len(parts), -1)) ** 2
    risk = attention_risk(kernel, inputs, targets, average=average)
    vector, back = ravel_pytree({name: getattr(layer, name) for name in names})
    hessian = jax.hessian(lambda vector: risk(layer._replace(**back(vector))))(vector)
    return jnp.max(jnp.abs(eigenvalues(hessian)))
