r"""The ball test: does descent stay where the features are well conditioned?

Training W^V with W^Q, W^K (W^O fixed) moves B, and with it mu. Within a ball of radius R around the
start in (W^Q, W^K) where |B - B_0| <= sigma(B_0)/2, Weyl's inequality keeps sigma(B) above
sigma(B_0)/2, so mu_t >= mu_eff = mu_0/4 and f_t <= (1 - eta mu_eff)^t f_0. Descent stays in the
ball if its path is shorter than R. Two bounds of the path, of which the smaller counts:

    all parameters   sum_t eta |grad f| <= 2 sqrt(2 f_0 / mu_eff)
    (W^Q, W^K)       <= 2 G sqrt(2 s f_0) / mu_eff,   G >= |d outputs / d (W^Q, W^K)| in the ball

R comes from the Lipschitz constant that the kernel carries
(:mod:`meanfield.theory.kernel_lipschitz`). :func:`ball_check` holds a run against all of this.

One trap: the test is sufficient, not necessary. It fails for most starts that converge; what it
passes converges for certain, if every step keeps the descent inequality.

References:
    Song et al. 2024, arXiv 2411.07538 (the condition on the start of its global theorem).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from meanfield.theory.attention_layer import (
    AttentionLayer,
    Kernel,
    attention_features,
    check_layer,
    risk_share,
    trained_names,
)
from meanfield.theory.kernel_lipschitz import Lipschitz, lipschitz_of
from meanfield.theory.layer_norms import LayerNorms, layer_norms


class BallTest(NamedTuple):
    """The outcome of the ball test.

    Attributes:
        passes: Whether the path is shorter than the radius.
        margin: Radius over length; above 1 where the test passes.
        radius: R.
        length: The smaller bound of the path.
        sigma: sigma(B_0); 0 where B_0 has no full row rank to round-off.
        pl: mu_eff, the constant of the rate that follows.
        risk: f_0.
        statement: All of it in one sentence.
    """

    passes: bool
    margin: float
    radius: float
    length: float
    sigma: float
    pl: float
    risk: float
    statement: str


def ball_test(
    kernel: Kernel,
    layer: AttentionLayer,
    inputs: Float[Array, "b n d"],
    targets: Float[Array, "b n c"],
    /,
    *,
    trained: Sequence[str] = ("query", "key", "value"),
    average: bool = False,
) -> BallTest:
    """Whether descent provably stays in the ball around its start, and by what margin.

    Args:
        kernel: From queries and keys to weights, with its Lipschitz constant.
        layer: Where descent begins.
        inputs: The samples X_i.
        targets: The targets y_i.
        trained: The names of the trained parameters: value, with query, key, or both, or neither.
        average: Whether the sum over samples is divided by N.

    Raises:
        ValueError: If sizes do not match, a value is not finite, a name is unknown, value is not
            trained, or output is, or the kernel carries no Lipschitz constant.

    References:
        Song et al. 2024, arXiv 2411.07538.

    >>> import jax.numpy as jnp
    >>> from meanfield.theory import SoftmaxKernel
    >>> one = jnp.ones((1, 1, 1))
    >>> ball_test(SoftmaxKernel(), AttentionLayer(*[one] * 4), one, one).passes
    True
    """
    names = trained_names(trained)
    if "value" not in names or "output" in names:
        raise ValueError(
            f"trained must hold value and not output, got {names}: the theorem is of W^V with any "
            "of W^Q and W^K, at fixed W^O"
        )
    lipschitz = lipschitz_of(kernel)
    check_layer(layer, inputs, targets)
    share = risk_share(inputs, average=average)
    features = attention_features(kernel, layer, inputs)
    found = layer_norms(features, layer, inputs, targets)
    return norms_test(found, lipschitz, share=share, moving=len(names) > 1)


def norms_test(
    norms: LayerNorms, lipschitz: Lipschitz, /, *, share: float, moving: bool
) -> BallTest:
    """The ball test, from what it reads of a layer.

    Args:
        norms: What it reads.
        lipschitz: The constant Lambda of the kernel.
        share: The factor before the sum over samples.
        moving: Whether W^Q or W^K are trained; if not, B stays and the radius is infinite.

    >>> one = np.ones((1, 1, 1))
    >>> norms = LayerNorms(one, 0 * one, one[0], *[np.ones((1, 1))] * 6, head_dim=1)
    >>> norms_test(norms, lambda *norms: norms[0], share=1.0, moving=False).pl
    1.0
    """
    rows = len(norms.features)
    flat = np.asarray(norms.features, float).reshape(rows, -1)
    values = np.linalg.svd(flat, compute_uv=False)
    # Round-off of the features in their own precision is no rank; by the Frobenius norm, at least
    # the spectral one, the verdict errs towards "no".
    cut = float(np.finfo(norms.features.dtype).eps) * max(flat.shape) * np.linalg.norm(values)
    sigma = float(values[-1]) if flat.shape[1] >= rows and values[-1] > cut else 0.0
    risk = share / 2 * float(np.sum((norms.outputs.sum(axis=1) - norms.targets) ** 2))
    # Where B stays, its constant does not fall to a quarter.
    pl = share * (sigma * float(norms.least.min())) ** 2 / (4 if moving else 1)
    radius, length = (math.inf, 0.0) if not moving else (0.0, math.inf)
    if moving and pl > 0:
        radius, length = _radius_and_length(norms, lipschitz, share, (sigma, pl, risk))
    passes = pl > 0 and length < radius
    margin = (radius / length if length > 0 else math.inf) if pl > 0 else 0.0
    return BallTest(
        passes,
        margin,
        radius,
        length,
        sigma,
        pl,
        risk,
        _statement(margin, radius, length, passes=passes),
    )


def _radius_and_length(
    norms: LayerNorms, lipschitz: Lipschitz, share: float, at: tuple[float, float, float]
) -> tuple[float, float]:
    sigma, pl, risk = at
    samples = norms.inputs[:, None]
    tokens = len(norms.features) // len(samples)

    def slopes(radius: float) -> np.ndarray:
        reach = samples * radius
        bound = lipschitz(norms.queries + reach, norms.keys + reach, tokens, norms.head_dim)
        return bound * samples**2

    def moved(radius: float) -> float:
        return radius * float(np.sqrt(np.max(np.sum(slopes(radius) ** 2, axis=0))))

    radius = _largest(moved, sigma / 2)
    whole = 2 * math.sqrt(2 * risk / pl)
    outward = slopes(radius) * ((norms.values + whole) * norms.largest)[None]
    travel = 2 * float(np.sqrt(np.sum(outward**2))) * math.sqrt(2 * share * risk) / pl
    return radius, min(whole, travel)


def _largest(increasing: Callable[[float], float], allowed: float) -> float:
    """The largest argument, up to 1e30, at which an increasing function is at most ``allowed``."""
    low, high = 0.0, 1.0
    while increasing(high) <= allowed:
        low, high = high, 2 * high
        if high > 1e30:
            return low
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) <= allowed else (low, middle)
    return low


def _statement(margin: float, radius: float, length: float, *, passes: bool) -> str:
    if margin == 0.0:
        return "the ball test fails: B has no full row rank, or k < c, so mu = 0"
    word = "passes" if passes else "fails"
    return (
        f"the ball test {word} by a factor {margin:.3g}: a path of at most {length:.3g} in a ball "
        f"of radius {radius:.3g}"
    )
