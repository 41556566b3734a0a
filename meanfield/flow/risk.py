r"""Empirical risk and regularised energy.

    R(theta) = (1/N) sum_i loss(f(x_i; theta), y_i)
    Q(theta) = R(theta) + (lambda/2) sum_b decay_b |theta_b|^2

with decay scales from the scaling law (1/(L M) for mean-field particles). Risk and energy are
functions of theta alone that carry their data as leaves of a tree: new data or another lambda of
the same shape compile nothing anew.

One trap: where samples are handled in chunks (:mod:`meanfield.flow.chunks`), the forward-mode
derivative of a risk costs a whole gradient.

References:
    Gao et al. 2024, arXiv 2410.23610 (R and Q).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from meanfield import devices
from meanfield.checks import choice, count, finite, non_negative
from meanfield.flow.chunks import chunked_sum
from meanfield.notation import Risk, Scalar
from meanfield.tree import broadcast_prefix, leading_axis, squared_norm
from meanfield.working_set import fitting, largest_arrays, size, turn

Loss = Callable[[Any, Any], Scalar]


def square(output: Float[Array, "*c"], target: Float[Array, "*c"], /) -> Scalar:
    """Half the squared distance of one output to its target.

    Args:
        output: The model's output.
        target: What it should be, of the same shape.

    >>> float(square(jnp.array([3.0]), jnp.array([1.0])))
    2.0
    """
    if jnp.shape(output) != jnp.shape(target):
        raise ValueError(
            f"targets must have the outputs' shape {jnp.shape(output)}, got {jnp.shape(target)}"
        )
    return jnp.sum((output - target) ** 2) / 2


def cross_entropy(logits: Float[Array, "c"], label: Any, /) -> Scalar:
    """Negative log-likelihood of one label under softmax of the logits.

    Args:
        logits: One number per class.
        label: The integer class. The loss of a label that is no class is NaN.

    Raises:
        ValueError: If the label is not an integer.

    >>> float(cross_entropy(jnp.zeros(2), 1).round(4))
    0.6930999755859375
    """
    dtype = jnp.result_type(label)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"labels must be whole numbers, got {dtype}")
    # A label that is no class must not pass for the last one.
    chosen = jnp.asarray(logits).at[label].get(mode="fill", fill_value=jnp.nan)
    return jax.nn.logsumexp(logits) - jnp.where(jnp.asarray(label) >= 0, chosen, jnp.nan)


LOSSES: dict[str, Loss] = {"square": square, "cross_entropy": cross_entropy}


def empirical_risk(
    apply: Callable[[Any, Any], Any],
    inputs: PyTree,
    targets: PyTree,
    *,
    loss: str | Loss = "square",
    chunk: int | None = None,
    mesh: Mesh | None = None,
    partition: PyTree = None,
) -> Risk:
    """The mean loss over a data set, as a function of the parameters.

    Args:
        apply: The model's map (theta, sample) -> output.
        inputs: Samples along the leading axis of every leaf.
        targets: Targets along the leading axis.
        loss: ``"square"``, ``"cross_entropy"`` or a function (output, target) -> number.
        chunk: Samples handled at once; it sets memory and speed, the value changes to round-off. A
            chunk that does not divide the data is handled by a shorter last one. If None, all, or
            as many as the device handles fastest at once (:func:`meanfield.working_set.turn`).
        mesh: Devices that share the work: samples lie along its axis ``"data"``, if it has one.
        partition: How theta lies on the mesh: a prefix of ``jax.sharding.PartitionSpec``
            (``model.partition``); theta is on every device if None.

    Returns:
        The risk theta -> number, differentiable to any order in both modes.

    Raises:
        ValueError: If inputs and targets differ in length, data are not finite, the loss is
            unknown, or the devices do not divide the samples.

    References:
        Gao et al. 2024, arXiv 2410.23610.

    >>> risk = empirical_risk(lambda theta, x: theta * x, jnp.ones(4), jnp.zeros(4), chunk=2)
    >>> float(risk(jnp.array(3.0))), float(jax.grad(risk)(jnp.array(3.0)))
    (4.5, 3.0)
    """
    samples = leading_axis(inputs)
    if leading_axis(targets) != samples:
        raise ValueError(
            f"targets must be as many as inputs, got {leading_axis(targets)} and {samples}"
        )
    count("the number of samples", samples)
    finite("inputs", inputs)
    finite("targets", targets)
    if isinstance(loss, str):
        loss = LOSSES[choice("loss", loss, LOSSES)]
    chunk = chunk if chunk is None else min(count("chunk", chunk), samples)

    mean_loss = _MeanLoss(apply=apply, loss=loss, chunk=chunk)
    data = jax.tree.map(jnp.asarray, (inputs, targets))
    if mesh is None:
        return Partial(mean_loss, data)
    spread = _SpreadLoss(mean_loss, mesh, PartitionSpec() if partition is None else partition)
    return Partial(spread, devices.spread(data, mesh, spread.of_data()))


def energy(
    risk: Risk, decay_scales: Callable[[Any], PyTree], /, *, weight_decay: float | Scalar
) -> Risk:
    """The regularised energy: risk plus half the weighted squared norm.

    Args:
        risk: The risk theta -> number.
        decay_scales: From theta, one weight per branch (``model.decay_scales``).
        weight_decay: The constant lambda.

    Returns:
        The energy theta -> number. Another lambda compiles nothing anew.

    Raises:
        ValueError: If ``weight_decay`` is negative.

    References:
        Gao et al. 2024, arXiv 2410.23610.

    >>> decayed = energy(lambda theta: 0.0, lambda theta: 1.0, weight_decay=0.5)
    >>> float(decayed(jnp.array([2.0])))
    1.0
    """
    if not isinstance(weight_decay, Tracer):
        non_negative("weight_decay", float(weight_decay))
    return Partial(_energy, as_partial(risk), as_partial(decay_scales), jnp.asarray(weight_decay))


def as_partial(function: Callable[..., Any]) -> Partial:
    """The function as a tree that may enter ``jit`` as an argument.

    Args:
        function: Any function; one that carries its arrays as leaves is left alone.

    >>> as_partial(abs)(-1)
    1
    """
    return function if isinstance(function, Partial) else Partial(function)


def _energy(risk: Risk, decay_scales: Callable, weight_decay: Scalar, theta: PyTree) -> Scalar:
    scales = broadcast_prefix(decay_scales(theta), theta)
    norms = jax.tree.map(lambda factor, leaf: factor * squared_norm(leaf), scales, theta)
    return risk(theta) + weight_decay / 2 * sum(jax.tree.leaves(norms))


@dataclass(frozen=True, kw_only=True)
class _MeanLoss:
    # Equal choices make equal objects, so that a risk of new data reuses the compiled program.
    apply: Callable[[Any, Any], Any]
    loss: Loss
    chunk: int | None

    def __call__(self, data: PyTree, theta: PyTree, *, shares: int = 1) -> Scalar:
        """The mean over all samples, or one device's share of it."""
        samples = leading_axis(data)
        chunk = None if self.chunk is None else min(self.chunk, samples)
        if chunk is None:
            one = jax.eval_shape(lambda x: jax.tree.map(lambda leaf: leaf[0], x), data[0])
            largest = largest_arrays(self.apply, theta, one)
            room = turn(largest.weight, size(theta), alone=devices.alone())
            chunk = fitting(samples, largest.made, room=room)

        def total(theta: PyTree, inputs: PyTree, targets: PyTree) -> Scalar:
            outputs = jax.vmap(self.apply, in_axes=(None, 0))(theta, inputs)
            return jnp.sum(jax.vmap(self.loss)(outputs, targets)) / (shares * samples)

        return chunked_sum(total, data, theta, chunk=chunk)


@dataclass(frozen=True)
class _SpreadLoss:
    mean_loss: _MeanLoss
    mesh: Mesh
    partition: PyTree

    def of_data(self) -> PartitionSpec:
        return PartitionSpec("data" if "data" in self.mesh.shape else None)

    def __call__(self, data: PyTree, theta: PyTree) -> Scalar:
        devices.check_spread(theta, self.mesh, self.partition)

        def mine(data: PyTree, theta: PyTree) -> Scalar:
            if "data" not in self.mesh.shape:
                return self.mean_loss(data, theta)
            # Once for all parameters: one reduction over samples for a gradient.
            share = self.mean_loss(
                data, devices.varying(theta, "data"), shares=jax.lax.axis_size("data")
            )
            return jax.lax.psum(share, "data")

        specs = {"in_specs": (self.of_data(), self.partition)}
        whole = devices.mapped(mine, self.mesh, **specs, out_specs=PartitionSpec())
        if not devices.parted():
            return whole(data, theta)

        # Where replicas are parted, jax cannot turn a nested map around; forwards it can.
        @jax.custom_jvp
        def risk(theta: PyTree) -> Scalar:
            return whole(data, theta)

        @risk.defjvp
        def _(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
            slopes = jax.value_and_grad(mine, argnums=1)
            outs = (PartitionSpec(), self.partition)
            both = devices.mapped(slopes, self.mesh, **specs, out_specs=outs)
            value, gradient = both(data, *primals)
            return value, devices.dot(gradient, tangents[0], value)

        return risk(theta)
