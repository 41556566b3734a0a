"""ROCK4 as a solver: the recursion of P_{s-4}, then the four stages that complete the order.

One trap: its stages are consistent to order one only, those of RKC2 to order two; on a stiff flow
its error is that of a method of lower order.

References:
    Abdulle, Fourth order Chebyshev methods with recurrence relation, SIAM J. Sci. Comput. 23
    (2002), sections 3 and 4.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.integrator_relatives import Stabilised
from benchmarks.integrator_rock_schemes import schemes


class ROCK4(Stabilised):
    """Fourth-order orthogonal Runge-Kutta-Chebyshev method, for autonomous fields."""

    accuracy = 4
    damping: float = 0.95
    max_stages: int = 400

    def least(self):
        """Interval of five stages."""
        return schemes(self.max_stages, self.damping)[0].interval

    def polynomial(self, rate, y0, first, h, scaled_radius):
        """The recursion, then four stages; the fifth slope is that of the end."""
        known = schemes(self.max_stages, self.damping)
        sizes = np.array([len(scheme.recursion) for scheme in known])
        intervals = np.array([scheme.interval for scheme in known])
        index = jnp.minimum(jnp.searchsorted(intervals, scaled_radius), len(known) - 1)
        rows = jnp.asarray(np.concatenate([scheme.recursion for scheme in known]))
        begin, degree = jnp.asarray(np.cumsum(sizes) - sizes)[index], jnp.asarray(sizes)[index]

        def stage(carry):
            j, y, before, field = carry
            mu, nu, kappa = rows[begin + j]
            following = mu * h * field + nu * y + kappa * before
            return j + 1, following, y, rate(following)

        y, slope = (
            lax.while_loop(lambda c: c[0] < degree, stage, (0, y0, y0, first))[i] for i in (1, 3)
        )
        matrix, weights, errors = (
            jnp.asarray(np.stack([getattr(scheme, name) for scheme in known]))[index]
            for name in ("matrix", "weights", "error")
        )

        def last(i, slopes):
            row = jnp.where(i < 4, matrix[jnp.minimum(i, 3)], weights)
            return slopes.at[i].set(rate(y + h * (row @ slopes[:4])))

        slopes = lax.fori_loop(1, 5, last, jnp.zeros((5, len(y0))).at[0].set(slope))
        end = y + h * (weights @ slopes[:4])
        return (
            end,
            slopes[4],
            h * (errors[0] * first + errors[1:] @ slopes),
            degree + 4,
            intervals[-1],
        )
