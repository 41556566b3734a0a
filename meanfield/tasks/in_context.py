"""Learning problems whose answers are known: in-context regression and teacher-student.

    in-context   tokens (x_1, y_1), ..., (x_n, y_n), (x, 0);   y_i = <w, x_i> + noise e_i,
                 w ~ N(0, I/dim),  x_i, x ~ N(0, I),  e_i ~ N(0, 1)
    teacher      targets = f(inputs; theta*)

The risk is E (1/2) (prediction - label)^2, as in the mean-field limit of Gao et al.
Trap: the label of the query carries noise like every other, so no predictor has a risk below
noise^2 / 2.

References:
    Gao et al., arXiv 2410.23610 (the query is the last token, its label slot is empty);
    Garg et al., arXiv 2208.01066 (linear regression in context).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from meanfield.checks import count, non_negative


class Prompts(NamedTuple):
    """In-context regression prompts.

    `tokens` hold n - 1 examples (x_i, y_i) and last the query (x, 0); `labels` are the answers at
    the queries, and `weights` the linear teachers, one per prompt, which the learner never sees.
    """

    tokens: Float[Array, "b n d+1"]
    labels: Float[Array, " b"]
    weights: Float[Array, "b d"]


class Pairs(NamedTuple):
    """Inputs and the targets that a teacher gives them, sample by sample."""

    inputs: Shaped[Array, "b ..."]
    targets: Float[Array, "b ..."]


def in_context_regression(
    key: PRNGKeyArray, samples: int, /, *, context: int, dim: int, noise: float | int = 0.0
) -> Prompts:
    """Prompts of linear regression in context, a fresh teacher for each.

    Args:
        key: Random key.
        samples: Number of prompts.
        context: Number of labelled examples before the query.
        dim: Dimension of the covariates; tokens have one coordinate more.
        noise: Standard deviation of the noise on every label, that of the query included.

    Returns:
        The prompts, with `context + 1` tokens each.

    Raises:
        ValueError: A count below 1, or noise that is negative or not finite.

    References:
        Garg et al., arXiv 2208.01066.

    >>> prompts = in_context_regression(jax.random.key(0), 4, context=8, dim=3)
    >>> prompts.tokens.shape, prompts.tokens[:, -1, -1].tolist()
    ((4, 9, 4), [0.0, 0.0, 0.0, 0.0])
    """
    samples, context = count("samples", samples), count("context", context)
    dim, noise = count("dim", dim), non_negative("noise", noise)
    covariate_key, weight_key, noise_key = jax.random.split(key, 3)
    covariates = jax.random.normal(covariate_key, (samples, context + 1, dim))
    weights = jax.random.normal(weight_key, (samples, dim)) / math.sqrt(dim)
    clean = jnp.einsum("bnd,bd->bn", covariates, weights)
    answers = clean + noise * jax.random.normal(noise_key, clean.shape)
    slots = answers.at[:, -1].set(0.0)
    tokens = jnp.concatenate([covariates, slots[..., None]], axis=-1)
    return Prompts(tokens, answers[:, -1], weights)


def in_context_ridge(prompts: Prompts, /, *, noise: float | int = 0.0) -> Float[Array, " b"]:
    """Bayes-optimal predictions: ridge regression on each context, read at the query.

        prediction = <(X^T X + dim noise^2 I)^{-1} X^T y, x>

    Args:
        prompts: Prompts; only their tokens are read.
        noise: Standard deviation of the label noise. At 0 the limit is taken: least squares, of
            minimal norm where the context is shorter than the dimension.

    Returns:
        The posterior mean of each label, the predictor of least risk.

    Raises:
        ValueError: Noise that is negative or not finite, or tokens that are not prompts.

    References:
        Garg et al., arXiv 2208.01066, section 3.

    >>> prompts = in_context_regression(jax.random.key(0), 4, context=8, dim=3)
    >>> bool(jnp.allclose(in_context_ridge(prompts), prompts.labels, atol=1e-4))
    True
    """
    noise = non_negative("noise", noise)
    left, values, right = _context_factors(prompts)
    shrunk = _filter(values, noise, prompts.tokens) / jnp.where(values == 0.0, 1.0, values)
    answers = jnp.einsum("bnr,bn->br", left, prompts.tokens[:, :-1, -1])
    query = jnp.einsum("brd,bd->br", right, prompts.tokens[:, -1, :-1])
    return jnp.sum(answers * shrunk * query, axis=-1)


def in_context_bayes_risk(prompts: Prompts, /, *, noise: float | int = 0.0) -> Float[Array, ""]:
    """Risk of the Bayes predictor, averaged over the contexts of the given prompts.

        (1/2) (noise^2 + tr Cov(w | context))

    Teacher, query and noise are integrated out exactly. Without noise every context gives
    (1/2) max(0, 1 - context/dim).

    Args:
        prompts: Prompts; only the covariates of their contexts are read.
        noise: Standard deviation of the label noise.

    Returns:
        A lower bound on the expected risk of any predictor on such contexts.

    Raises:
        ValueError: Noise that is negative or not finite, or tokens that are not prompts.

    >>> prompts = in_context_regression(jax.random.key(0), 4, context=2, dim=8)
    >>> round(float(in_context_bayes_risk(prompts)), 6)
    0.375
    """
    noise = non_negative("noise", noise)
    _, values, _ = _context_factors(prompts)
    dim = prompts.tokens.shape[2] - 1
    # Each covered direction keeps the share 1 - filter of its prior variance 1/dim.
    learned = jnp.sum(_filter(values, noise, prompts.tokens), axis=-1)
    return 0.5 * jnp.mean(noise**2 + (dim - learned) / dim)


def in_context_zero_risk(*, noise: float | int = 0.0) -> float:
    """Risk of the predictor that always answers 0: (1/2) (1 + noise^2), in any dimension.

    Args:
        noise: Standard deviation of the label noise.

    Returns:
        The risk at which training starts when the read-out is 0.

    Raises:
        ValueError: Noise that is negative or not finite.

    >>> in_context_zero_risk(noise=0.5)
    0.625
    """
    return 0.5 * (1.0 + non_negative("noise", noise) ** 2)


def teacher_student(
    key: PRNGKeyArray,
    samples: int,
    /,
    *,
    apply: Callable[[Any, Any], Array],
    theta: Any,
    inputs: Callable[[PRNGKeyArray, int], Array],
) -> Pairs:
    """Data labelled by a teacher network, whose own risk is therefore exactly 0.

    Args:
        key: Random key of the inputs.
        samples: Number of samples.
        apply: Network on one sample, `apply(theta, sample) -> target`, as `flow.empirical_risk`
            takes it.
        theta: Parameters of the teacher; the student may be narrower or wider.
        inputs: Law of the inputs, `inputs(key, samples) -> [b, ...]`.

    Returns:
        Inputs with their targets; the least risk over students that contain the teacher is 0.

    Raises:
        ValueError: Fewer than one sample, inputs of another length, or non-finite targets.

    >>> law = lambda key, samples: jax.random.normal(key, (samples, 3))
    >>> pairs = teacher_student(jax.random.key(0), 5, apply=jnp.dot, theta=jnp.ones(3), inputs=law)
    >>> pairs.inputs.shape, pairs.targets.shape
    ((5, 3), (5,))
    """
    samples = count("samples", samples)
    drawn = inputs(key, samples)
    if np.shape(drawn)[:1] != (samples,):
        raise ValueError(
            f"inputs(key, {samples}) must return {samples} samples on its first axis, "
            f"got shape {list(np.shape(drawn))}"
        )
    targets = jax.vmap(apply, in_axes=(None, 0))(theta, drawn)
    if not isinstance(targets, Tracer) and not np.isfinite(np.asarray(targets)).all():
        raise ValueError("targets must be finite, got NaN or infinity; choose a smaller teacher")
    return Pairs(jnp.asarray(drawn), jnp.asarray(targets))


def _context_factors(prompts: Prompts) -> tuple[Array, Array, Array]:
    """Singular value decomposition of each context's covariates, values below round-off put to 0.

    The normal equations would square the condition number, and have no limit at zero noise.
    """
    tokens = prompts.tokens
    if tokens.ndim != 3 or tokens.shape[1] < 2 or tokens.shape[2] < 2:
        raise ValueError(
            "prompts.tokens must be [b n d+1] with at least one example before the query, "
            f"got {list(tokens.shape)}"
        )
    left, values, right = jnp.linalg.svd(tokens[:, :-1, :-1], full_matrices=False)
    cutoff = values[:, :1] * max(tokens.shape[1:]) * jnp.finfo(values.dtype).eps
    return left, jnp.where(values > cutoff, values, 0.0), right


def _filter(values: Array, noise: float, tokens: Array) -> Array:
    penalty = (tokens.shape[2] - 1) * noise**2
    squares = values**2
    return jnp.where(squares > 0.0, squares / jnp.where(squares > 0.0, squares + penalty, 1.0), 0.0)
