"""A step controller that notices when a flow ceases to exist.

One trap: an error estimate that is NaN stops the clock without ending the solve, and a step below
the resolution of time repeats itself for ever; both must end it.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp


class Guarded(diffrax.AbstractAdaptiveStepSizeController):
    """Wraps a controller: shrinks the step at NaN, and ends the solve at a vanishing step.

    Args:
        controller: The controller that decides on steps.
        span: Length of the whole solve.

    >>> Guarded(diffrax.PIDController(rtol=1e-3, atol=1e-6), 1.0).rtol
    0.001
    """

    rtol: Any
    atol: Any
    norm: Callable[[Any], Any]
    controller: diffrax.AbstractAdaptiveStepSizeController
    span: Any

    def __init__(self, controller: Any, span: Any):
        self.rtol, self.atol, self.norm = controller.rtol, controller.atol, controller.norm
        self.controller = controller
        self.span = span

    def wrap(self, direction: Any) -> "Guarded":
        """A copy that knows the direction of time."""
        return Guarded(self.controller.wrap(direction), self.span)

    def init(  # noqa: PLR0917 (the base class fixes the signature)
        self, terms, t0, t1, y0, dt0, args, func, error_order
    ):
        """First step and state of the wrapped controller."""
        return self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(  # noqa: PLR0917 (the base class fixes the signature)
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """As ``diffrax.AbstractStepSizeController.adapt_step_size``."""
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((y1_candidate, y_error))]
        good = jnp.array(finite).all()
        y1_candidate = jax.tree.map(lambda new, old: jnp.where(good, new, old), y1_candidate, y0)
        y_error = jax.tree.map(lambda error: jnp.where(good, error, jnp.inf), y_error)
        keep, start, end, jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        resolution = jnp.finfo(jnp.result_type(start)).eps
        least = jnp.maximum(4 * resolution * jnp.abs(start), 1e-3 * resolution * self.span)
        # The last step may be short, and is kept; one of no length at all leads nowhere.
        vanishing = ((end - start < least) & ~keep) | (end <= start)
        result = diffrax.RESULTS.where(vanishing, diffrax.RESULTS.dt_min_reached, result)
        return keep, start, end, jump, state, result
