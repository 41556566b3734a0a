r"""Frank-Wolfe gap of a convex energy: a rigorous bound on Q(rho) - Q* in low dimension.

For one layer of one block, with a linear readout and a convex loss, Q is convex in rho, and with
Psi = dQ/drho

    Q(rho) - Q*  <=  int Psi drho - inf Psi.

The infimum is enclosed by branch and bound in theta_2, the homogeneous part theta_1 being minimised
out (:mod:`meanfield.theory.homogeneous`), with a Lipschitz constant K of theta_2 -> g(theta_2), or
of the risk's part of Psi where there is no homogeneous part (:mod:`meanfield.theory.enclosure`).

One trap: the bound is as good as K, and speaks of measures on the domain searched. That domain is
all of particle space only if lambda > 0 and ``bound`` >= sup |g| is given: |g| <= G puts the
minimiser of V within |theta_2| <= G/lambda.

References:
    Jaggi 2013, *Revisiting Frank-Wolfe* (the gap as a certificate); Ding et al., eq. (10).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from meanfield.checks import count, finite, non_negative, positive
from meanfield.theory.enclosure import Enclosure, enclosed_infimum
from meanfield.theory.first_variation import first_variation
from meanfield.theory.homogeneous import check_linear, flat, norms, unmarked
from meanfield.theory.states import Encoder, States
from meanfield.tree import leading_axis


class Gap(NamedTuple):
    """The Frank-Wolfe gap, and what it rests on.

    Attributes:
        gap: ``level - infimum.lower``, a bound on Q(rho) - Q* among measures on the domain.
        level: int Psi drho.
        infimum: The bounds of inf Psi, with the constant and the effort behind them.
        reach: The domain: |theta_2| <= reach.
        rigorous: Whether K was given; otherwise it was estimated and the gap is an estimate.
        statement: All of it in one sentence.
    """

    gap: float
    level: float
    infimum: Enclosure
    reach: float
    rigorous: bool
    statement: str


def frank_wolfe_gap(
    encoder: Encoder,
    particles: PyTree[Float[Array, "l m ..."]],
    states: States,
    /,
    *,
    homogeneous: PyTree,
    weight_decay: float,
    lipschitz: float | None = None,
    bound: float | None = None,
    reach: float | None = None,
    radius: float = math.inf,
    tolerance: float = 1e-4,
    max_evaluations: int = 1_000_000,
) -> Gap:
    """The gap int Psi drho - inf Psi >= Q(rho) - Q* of an energy that is convex in rho.

    Args:
        encoder: The map of one particle (``block.particle``).
        particles: The particles of the one layer, leading axes [1, m].
        states: Tokens and forces of that layer (:func:`network_states`).
        homogeneous: True for the leaves in which the encoder is linear; False for none.
        weight_decay: The constant lambda.
        lipschitz: K over the cube of half-side ``reach``; estimated from slopes at random
            particles, times 2, if None.
        bound: A bound of |g| (of the risk's part, without a homogeneous part) over all of particle
            space; with lambda > 0 it sets ``reach`` so that the domain is all of it.
        reach: The domain |theta_2| <= reach, where no bound is given.
        radius: Bound of |theta_1|; must be finite if lambda = 0.
        tolerance: Distance of ``lower`` to ``upper`` at which the search stops.
        max_evaluations: Evaluations after which it stops anyway, with the bound reached so far.

    Raises:
        ValueError: If there is more than one layer, theta_2 has more than 3 dimensions, the domain
            is unbounded or does not hold the particles, or an argument breaks these rules.

    References:
        Jaggi 2013, *Revisiting Frank-Wolfe*.

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> wave = lambda T, theta, mask: jnp.cos(theta) * T
    >>> options = {"homogeneous": False, "weight_decay": 0.0, "lipschitz": 1.0, "reach": 4.0}
    >>> gap = frank_wolfe_gap(wave, jnp.zeros((1, 2)), states, **options)
    >>> gap.level, round(gap.infimum.upper, 3), gap.rigorous
    (1.0, -1.0, True)
    """
    marks = _marks(encoder, particles, states, homogeneous)
    options = {
        "weight_decay": non_negative("weight_decay", weight_decay),
        "radius": radius,
        "lipschitz": None if lipschitz is None else positive("lipschitz", lipschitz),
        "tolerance": positive("tolerance", tolerance),
        "budget": count("max_evaluations", max_evaluations),
    }
    reach, domain = _domain(particles, marks, weight_decay, bound, reach=reach, radius=radius)
    one, own = jax.tree.map(lambda leaf: leaf[0, 0], particles), _rest(particles, marks)
    infimum = enclosed_infimum(encoder, one, states, own, marks=marks, reach=reach, **options)
    values = first_variation(encoder, states, particles, weight_decay=weight_decay).value
    return _gap(float(jnp.mean(values)), infimum, reach, domain, lipschitz is not None)


def neuron_bounds(
    states: States, /, *, activation: float = 1.0, slope: float = 1.0
) -> tuple[float, float]:
    """Bounds of |g| and of its Lipschitz constant for neurons, g the force on weight_out.

        g(w_in, b) = sum over samples and tokens of  sigma(<T, w_in> + b) kappa p

    Args:
        states: Tokens and forces of one layer.
        activation: sup |sigma| (1 for tanh).
        slope: sup |sigma'| (1 for tanh).

    Returns:
        ``bound`` and ``lipschitz`` of :func:`frank_wolfe_gap`, true in all of particle space.

    >>> states = States(jnp.zeros(1), jnp.zeros((1, 1, 1, 1)), 3 * jnp.ones((1, 1, 1, 1)))
    >>> neuron_bounds(states)
    (3.0, 3.0)
    """
    forces = jnp.linalg.norm(states.forces, axis=-1)
    inputs = jnp.sqrt(jnp.sum(states.tokens**2, axis=-1) + 1)
    largest = jnp.max(jnp.sum(forces, axis=(1, 2)))
    return activation * float(largest), slope * float(jnp.max(jnp.sum(forces * inputs, (1, 2))))


def _rest(particles: PyTree, marks: tuple[bool, ...]) -> Any:
    return np.asarray(flat(jax.tree.map(lambda leaf: leaf[0], particles), unmarked(marks)))


def _marks(encoder, particles, states, homogeneous) -> tuple[bool, ...]:
    finite("states", states)
    finite("particles", particles)
    marks = check_linear(encoder, homogeneous, particles, states)
    layers, dimension = leading_axis(particles), _rest(particles, marks).shape[1]
    if layers != 1 or not 1 <= dimension <= 3:
        raise ValueError(
            f"the gap needs one layer and 1 to 3 dimensions to search, got {layers} layers and "
            f"{dimension} dimensions beside the homogeneous part; use certificate, which searches "
            "by restarts"
        )
    return marks


def _domain(
    particles, marks, weight_decay, bound, *, reach: float | None, radius: float
) -> tuple[float, str]:
    if any(marks) and not weight_decay:
        # Without decay nothing but a ball keeps the homogeneous part from infinity.
        positive("radius", radius)
    if bound is not None and weight_decay:
        size = non_negative("bound", bound) / weight_decay
        reach = max(size if any(marks) else 2 * math.sqrt(size), np.finfo(float).tiny)
        if radius == math.inf:
            return reach, "all"
    if reach is None:
        raise ValueError(
            "the domain must be bounded, got neither reach nor, with weight_decay > 0, a bound of "
            "the risk's part: give one of them"
        )
    positive("reach", reach)
    sizes = [float(jnp.max(norms(particles, part))) for part in (unmarked(marks), marks)]
    if sizes[0] > reach or sizes[1] > radius:
        raise ValueError(
            "reach and radius must hold the particles, whose largest norms are "
            f"{sizes[0]:.3g} (rest) and {sizes[1]:.3g} (homogeneous part), got {reach} and "
            f"{radius}: raise them"
        )
    return reach, f"|rest| <= {reach:.3g}, |homogeneous part| <= {radius:.3g}"


def _gap(level: float, infimum: Enclosure, reach: float, domain: str, rigorous: Any) -> Gap:
    gap = level - infimum.lower
    how = ("rigorous up to round-off", "given") if rigorous else ("an estimate", "estimated")
    statement = (
        f"Q(rho) - Q* <= {gap:.3g} among measures on {domain} of particle space, if Q is convex in "
        f"rho, {how[0]}: inf Psi lies in [{infimum.lower:.4g}, {infimum.upper:.4g}] by "
        f"{infimum.evaluations} evaluations and the Lipschitz constant {infimum.lipschitz:.3g}, "
        f"{how[1]}"
    )
    return Gap(
        gap=gap,
        level=level,
        infimum=infimum,
        reach=reach,
        rigorous=bool(rigorous),
        statement=statement,
    )
