r"""Feed-forward neurons as particles.

One neuron, with activation sigma:

    h(T, w) = sigma(T w_in + b) w_out^T,      w = (w_in in R^d, b in R, w_out in R^d)

One trap: the partial 1-homogeneity that global convergence needs is in ``weight_out``; normalising
it away changes the theorem.

References:
    Gao et al. 2024, arXiv 2410.23610 (encoder h; that it acts in a half-step of its own
    is our reading of the paper).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.checks import count
from meanfield.nn import inits
from meanfield.nn.block import Block, check_tokens
from meanfield.nn.products import matmul
from meanfield.notation import Mask, Tokens


class Neuron(NamedTuple):
    """One feed-forward neuron, or many along leading axes.

    Attributes:
        weight_in: w_in.
        bias: b.
        weight_out: w_out.
    """

    weight_in: Float[Array, "*particles d"]
    bias: Float[Array, "*particles"]
    weight_out: Float[Array, "*particles d"]


def mlp(
    *,
    dim: int,
    activation: Callable[[Array], Array] = jax.nn.gelu,
    measure: inits.Measure | None = None,
) -> Block:
    """The feed-forward half-step: every particle is one neuron.

    Args:
        dim: Token dimension d.
        activation: The function sigma, entry by entry.
        measure: Initial measure; ``scaled()`` (variance 1/d, unit biases) if None.

    Returns:
        The block, with particles :class:`Neuron`.

    Raises:
        ValueError: If ``dim`` is not a positive integer.

    References:
        Gao et al. 2024, arXiv 2410.23610.

    >>> mlp(dim=8).draw(jax.random.key(0)).weight_out.shape
    (8,)
    """
    vector: Any = jax.ShapeDtypeStruct((count("dim", dim),), jnp.result_type(float))
    number: Any = jax.ShapeDtypeStruct((), vector.dtype)
    template = Neuron(vector, number, vector)
    measure = measure or inits.scaled()

    def one(tokens: Tokens, neuron: Neuron, mask: Mask | None) -> Tokens:
        del mask
        check_tokens(tokens, neuron.weight_in.shape[-1], "neurons")
        hidden = activation(tokens @ neuron.weight_in + neuron.bias)
        return hidden[:, None] * neuron.weight_out[None, :]

    def mean(tokens: Tokens, neurons: Neuron, mask: Mask | None) -> Tokens:
        del mask
        check_tokens(tokens, neurons.weight_in.shape[-1], "neurons")
        inputs = matmul(tokens, neurons.weight_in, "nt")
        hidden = activation(inputs + neurons.bias[None, :])
        return matmul(hidden, neurons.weight_out) / len(neurons.bias)

    return Block(name="neurons", particle=one, mean=mean, draw=lambda key: measure(key, template))
