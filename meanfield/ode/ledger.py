"""A step controller that keeps the account of RKC2, rejected attempts included.

    h_next = min(h of the wrapped controller, longest step that max_stages can make stable)

Trap: diffrax restores the solver's state when it rejects a step, so counts kept there forget what
rejected steps cost; a controller's state is never restored. It is reached through the error
estimate, the one value that a solver hands to its controller.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Reported(NamedTuple):
    """What a solver reports of one attempted step: error, costs, longest stable step."""

    error: PyTree
    evaluations: Float[Array, ""]
    products: Float[Array, ""]
    longest: Float[Array, ""]


class LedgerState(NamedTuple):
    """State of the wrapped controller and the costs of all attempts so far."""

    inner: Any
    evaluations: Int[Array, "*batch"]
    products: Int[Array, "*batch"]


class Ledger(diffrax.AbstractAdaptiveStepSizeController):
    """Wraps an adaptive controller; use it with `RKC2(ledger=True)`, or call `with_ledger`.

    Args:
        controller: the controller that decides on steps, such as `diffrax.PIDController`.

    >>> Ledger(diffrax.PIDController(rtol=1e-3, atol=1e-6)).rtol
    0.001
    """

    rtol: Any
    atol: Any
    norm: Callable[[Any], Any]
    controller: diffrax.AbstractAdaptiveStepSizeController

    def __init__(self, controller: Any):
        self.rtol, self.atol, self.norm = controller.rtol, controller.atol, controller.norm
        self.controller = controller

    def wrap(self, direction):
        """A copy that knows the direction of time."""
        return Ledger(self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):  # noqa: PLR0917 diffrax dictates the signature
        """First step and state; the choice of a first step costs up to two evaluations."""
        traced = []

        def counted(*inputs):
            traced.append(True)
            return func(*inputs)

        tnext, inner = self.controller.init(terms, t0, t1, y0, dt0, args, counted, error_order)
        spent = jnp.asarray(2 if traced else 0, jnp.int32)
        return tnext, LedgerState(inner, spent, jnp.zeros_like(spent))

    def adapt_step_size(  # noqa: PLR0917 diffrax dictates the signature
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """As `diffrax.AbstractStepSizeController.adapt_step_size`, for a `Reported` error."""
        if not isinstance(y_error, Reported):
            raise ValueError(
                "Ledger needs a solver that reports its attempts: use RKC2(ledger=True), or "
                "with_ledger(solver, controller)"
            )
        decided = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error.error, error_order, controller_state.inner
        )
        keep, start, end, jump, inner, result = decided
        longest = jax.lax.stop_gradient(y_error.longest).astype(jnp.result_type(t0))
        end = jnp.where(longest > 0, jnp.minimum(end, start + longest), end)
        state = LedgerState(
            inner,
            controller_state.evaluations + y_error.evaluations.astype(jnp.int32),
            controller_state.products + y_error.products.astype(jnp.int32),
        )
        return keep, start, end, jump, state, result
