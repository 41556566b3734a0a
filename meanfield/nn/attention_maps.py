r"""Observables of attention maps and of the tokens that they mix.

    entropy           mean over queries a of -sum_b p_ab log p_ab,   p_ab = S_ab / sum_b' S_ab'
    effective rank    exp(-sum_i p_i log p_i),   p_i = sigma_i / sum_j sigma_j
    clustering        share of pairs of tokens with <x_a, x_b> / (|x_a| |x_b|) > threshold
    conditioning      sigma_max / sigma_min of Attn(X), and of Attn(X) + X

Every function keeps the leading axes of what it is given, so values are per layer and per head, and
their distribution over heads is there to be looked at.

One trap: the rows of the Gaussian kernel do not sum to one. Entropies are those of rows divided by
their sum, which is what the queries look at and not how much of it they take.

References:
    Roy and Vetterli 2007, The effective rank; Geshkovski et al. 2023, arXiv 2312.10794 (clusters
    of tokens); Qin, Zhou and Zhu 2025, arXiv 2506.05249 (conditioning with the skip connection).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Bool, Float

from meanfield.nn.network import Network, Particles
from meanfield.notation import Mask, Tokens
from meanfield.singular import singular_values


class Conditioning(NamedTuple):
    """Ratios of the largest to the smallest singular value; infinite for a matrix that lost rank.

    It has lost rank where the smallest is 0 or round-off of the largest, as in the zero matrix.

    Attributes:
        attention: Of Attn(X).
        residual: Of Attn(X) + X.
    """

    attention: Float[Array, "..."]
    residual: Float[Array, "..."]


def attention_maps(
    network: Network, particles: Particles, tokens: Tokens, mask: Mask | None = None, /
) -> tuple[Float[Array, "l m n n"], ...]:
    """The attention weights of all heads at the tokens of one sample, one array per block of heads.

    Args:
        network: The network; its kernels are meant.
        particles: One tree per block, leading axes [l, m].
        tokens: Tokens before the first layer.
        mask: True where a key may be attended to.

    Raises:
        ValueError: If no block attends, or the particles do not fit the blocks.

    >>> from meanfield import nn
    >>> net = nn.network((nn.attention(dim=4, head_dim=2), nn.mlp(dim=4)), depth=2)
    >>> heads = net.init(jax.random.key(0), width=3)
    >>> [maps.shape for maps in attention_maps(net, heads, jnp.ones((5, 4)))]
    [(2, 3, 5, 5)]
    """
    if all(block.weights is None for block in network.blocks):
        names = ", ".join(block.name for block in network.blocks)
        raise ValueError(
            f"network must have a block of attention heads, got {names}; a block of one's own "
            "says what its weights are by Block(weights=...)"
        )
    found = []
    states = network.states(particles, tokens, mask)
    for block, tree, read in zip(network.blocks, particles, states, strict=True):
        if block.weights is not None:
            of_layer = jax.vmap(block.weights, in_axes=(None, 0, None))
            found.append(jax.vmap(of_layer, in_axes=(0, 0, None))(read, tree, mask))
    return tuple(found)


def attention_entropy(
    weights: Float[Array, "*heads n n"], /, *, queries: Bool[Array, "n"] | None = None
) -> Float[Array, "*heads"]:
    """Mean entropy of the rows of attention maps, in nats: from 0 (one key) to log n (all alike).

    Args:
        weights: Attention weights >= 0; rows are divided by their sum, and one that is 0
            everywhere has entropy 0. NaN where a weight is negative.
        queries: Which rows count, say those that are no padding; all of them if None.

    >>> round(float(attention_entropy(jnp.array([[1.0, 0.0], [0.5, 0.5]]))), 4)
    0.3466
    """
    sums = jnp.sum(weights, axis=-1, keepdims=True)
    rows = weights / jnp.broadcast_to(jnp.where(sums == 0, 1, sums), weights.shape)
    # entr is -inf where a share is negative, which must not pass for a number.
    entropies = jnp.sum(jnp.where(weights < 0, jnp.nan, entr(rows)), axis=-1)
    if queries is None:
        return jnp.mean(entropies, axis=-1)
    counted = jnp.broadcast_to(queries, entropies.shape)
    return jnp.mean(entropies, axis=-1, where=counted)


def effective_rank(
    matrices: Float[Array, "*heads a b"], /, *, rows: Bool[Array, "a"] | None = None
) -> Float[Array, "*heads"]:
    """The effective rank of matrices: exp of the entropy of their normalised singular values.

    Args:
        matrices: Attention maps, tokens or weights; from 1 (rank one) to min(a, b) (orthogonal).
            The zero matrix has 0.
        rows: Which rows count, say those that are no padding; all of them if None.

    References:
        Roy and Vetterli 2007.

    >>> effective_rank(jnp.stack([jnp.eye(2), jnp.ones((2, 2))])).round(4).tolist()
    [2.0, 1.0]
    """
    if rows is not None:
        # Rows of zero add singular values of zero, which have no share.
        matrices = jnp.where(jnp.broadcast_to(rows[:, None], matrices.shape), matrices, 0)
    values = singular_values(matrices)
    sums = jnp.sum(values, axis=-1, keepdims=True)
    shares = values / jnp.broadcast_to(jnp.where(sums == 0, 1, sums), values.shape)
    ranks = jnp.exp(jnp.sum(entr(shares), axis=-1))
    return jnp.where(sums[..., 0] == 0, 0, ranks)


def token_clustering(
    tokens: Float[Array, "*layers n d"],
    /,
    *,
    threshold: float = 0.9,
    mask: Bool[Array, "n"] | None = None,
) -> Float[Array, "*layers"]:
    """The share of pairs of tokens whose cosine similarity is above a threshold.

    Args:
        tokens: Tokens; one that is 0 is similar to none.
        threshold: The cosine, in [-1, 1).
        mask: Which tokens count; all of them if None. NaN where fewer than two do.

    Raises:
        ValueError: If there are fewer than two tokens, or the threshold is out of range.

    References:
        Geshkovski et al. 2023, arXiv 2312.10794 (tokens that meet in the limit have share 1).

    >>> round(float(token_clustering(jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))), 4)
    0.3333
    """
    number = tokens.shape[-2]
    if number < 2:
        raise ValueError(f"tokens must be at least two, got shape {tokens.shape}")
    if not -1 <= threshold < 1:
        raise ValueError(f"threshold must be a cosine in [-1, 1), got {threshold}")
    norms = jnp.linalg.norm(tokens, axis=-1, keepdims=True)
    units = tokens / jnp.broadcast_to(jnp.where(norms == 0, 1, norms), tokens.shape)
    cosines = units @ jnp.swapaxes(units, -1, -2)
    pairs = jnp.triu(jnp.ones((number, number), bool), 1)
    if mask is not None:
        pairs = pairs & mask[:, None] & mask[None, :]
    close = jnp.where(jnp.isnan(cosines), jnp.nan, cosines > threshold)
    return jnp.mean(close, axis=(-2, -1), where=jnp.broadcast_to(pairs, close.shape))


def attention_conditioning(
    attended: Float[Array, "*layers n d"], tokens: Float[Array, "*layers n d"], /
) -> Conditioning:
    """Condition numbers of an attention update without and with its skip connection.

    Args:
        attended: Attn(X), as it is added to the tokens.
        tokens: X.

    Raises:
        ValueError: If the shapes differ.

    References:
        Qin, Zhou and Zhu 2025, arXiv 2506.05249.

    >>> found = attention_conditioning(jnp.diag(jnp.array([3.0, 1.0])), jnp.eye(2))
    >>> round(float(found.attention), 4), round(float(found.residual), 4)
    (3.0, 2.0)
    """
    if attended.shape != tokens.shape:
        raise ValueError(
            f"attended must have the shape of the tokens {tokens.shape}, got {attended.shape}"
        )
    return Conditioning(_condition(attended), _condition(attended + tokens))


def _condition(matrices: Any) -> Any:
    values = singular_values(matrices)
    largest, smallest = values[..., 0], values[..., -1]
    # The rule of `least_of_rows`. What is NaN is neither above the cut nor below it.
    lost = smallest <= jnp.finfo(values.dtype).eps * max(matrices.shape[-2:]) * largest
    return jnp.where(lost, jnp.inf, largest / jnp.where(lost, 1, smallest))
