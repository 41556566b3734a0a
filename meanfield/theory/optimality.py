r"""Certificate of optimality: a search for particles of negative first variation.

A measure is optimal to first order only if no particle has a first variation Psi = dQ/drho below
its mean over rho_t, at any depth. The search descends

    V_t(theta_2) = min over |theta_1| <= r of Psi(theta_1, theta_2),      |theta_2| <= reach,

from random restarts at every depth of every block, and reports the least value with the effort
that found it. What it finds with Psi < 0 is a descent direction: adding it at small mass lowers Q.
What it does not find is evidence, not proof:

    depth > 1                             first-order certificate
    one layer, Q convex in rho            Frank-Wolfe gap  int Psi drho - inf Psi >= Q(rho) - Q*,
                                          here with a searched infimum: an estimate of that bound

(:func:`frank_wolfe_gap` bounds the infimum rigorously in low dimension.)

One trap: a stationary measure has negative values of its own, Psi = (lambda/2)(|theta_2|^2 -
|theta_1|^2) on its support; compare with ``level``, the mean of Psi, before calling it suboptimal.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al., Prop. 6.1.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from meanfield.checks import count, finite, non_negative, positive
from meanfield.theory.homogeneous import check_linear, norms, unmarked
from meanfield.theory.search import Search, particle_search
from meanfield.theory.states import Encoder, States
from meanfield.tree import leading_axis

FIRST_ORDER = "first-order certificate"
CONVEX = "Frank-Wolfe estimate"


class Certificate(NamedTuple):
    """The report of a search.

    Attributes:
        kind: What it certifies: ``"first-order certificate"`` or ``"Frank-Wolfe estimate"``.
        value: The most negative first variation found anywhere.
        level: The mean of the first variation over rho_t at that block and depth.
        particle: The particle found.
        block: Its block.
        layer: Its layer.
        depth: Its depth in [0, 1].
        gap: The rate at which Q falls when mass moves to what was found, at all depths and blocks:
            the sum over blocks of the mean over depth of ``level - value``, where positive. Of the
            convex problem, an estimate of a bound on Q(rho) - Q*.
        searches: The findings of every block at every depth.
        restarts: Random starts per block and depth.
        steps: Descent steps per start.
        evaluations: How often a first variation and its gradient were evaluated, in all.
        radius: Bound of |theta_1| in the search.
        statement: All of it in one sentence.
    """

    kind: str
    value: float
    level: float
    particle: PyTree
    block: int
    layer: int
    depth: float
    gap: float
    searches: tuple[Search, ...]
    restarts: int
    steps: int
    evaluations: int
    radius: float
    statement: str


def certificate(
    key: Any,
    encoders: Sequence[Encoder],
    particles: tuple[Any, ...],
    states: Sequence[States],
    /,
    *,
    draws: Sequence[Callable[[Any], PyTree]],
    homogeneous: Sequence[PyTree],
    weight_decay: float,
    restarts: int = 32,
    steps: int = 100,
    radius: float | None = None,
    reach: float | None = None,
    convex: bool = False,
) -> Certificate:
    """Searches every block and depth for the particle of least first variation.

    Args:
        key: Random key.
        encoders: The map of one particle of every block (``block.particle``).
        particles: The network's own particles, one tree per block, leading axes [l, m].
        states: Tokens and forces of every block (:func:`network_states`).
        draws: From a key, a particle to start from (``block.draw``).
        homogeneous: For every block, True for the leaves in which its encoder is linear:
            ``nn.Neuron(False, False, True)``; False for none.
        weight_decay: The constant lambda.
        restarts: Random starts per block and depth.
        steps: Descent steps per start.
        radius: Bound of the homogeneous part; None is 1, and no bound if ``convex`` and lambda > 0.
        reach: Bound of the rest; None is twice the largest norm among the particles, at least 1.
        convex: That Q is convex in rho: one layer, linear readout, convex loss. Only the one layer
            can be checked here.

    Raises:
        ValueError: If an argument breaks these rules, or an encoder is not linear where marked.

    References:
        Ding et al., Prop. 6.1.

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> options = {"draws": [jax.random.normal], "homogeneous": [True], "weight_decay": 0.5}
    >>> drift = lambda T, theta, mask: theta * T
    >>> certificate(jax.random.key(0), [drift], (jnp.ones((1, 2)),), [states], **options).value
    -0.75
    """
    blocks = _blocks(encoders, particles, states, draws, homogeneous)
    depth = leading_axis(particles[0])
    search = functools.partial(
        _searched,
        restarts=count("restarts", restarts),
        steps=count("steps", steps),
        weight_decay=non_negative("weight_decay", weight_decay),
        radius=_radius(radius, weight_decay, convex=convex, shape=(len(blocks), depth)),
        reach=reach,
        convex=convex,
    )
    searches = [search(jax.random.fold_in(key, i), block) for i, block in enumerate(blocks)]
    return _certificate(searches, blocks, depth, search.keywords)


def _blocks(encoders, particles, states, draws, homogeneous) -> list[tuple]:
    counts = len(encoders), len(particles), len(states), len(draws), len(homogeneous)
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            "there must be one encoder, tree of particles, states, draw and mask per block, and "
            f"at least one block, got {counts}"
        )
    finite("states", tuple(states))
    finite("particles", particles)
    return list(zip(encoders, particles, states, draws, homogeneous, strict=True))


def _searched(key: Any, block: tuple, *, reach: Any, convex: bool, **options: Any) -> Search:
    encoder, tree, at, draw, mask = block
    marks = check_linear(encoder, mask, tree, at)
    ball = _reach(reach, tree, marks, radius=options["radius"], convex=convex)
    return particle_search(key, encoder, draw, tree, at, marks=marks, reach=ball, **options)


def _radius(given: float | None, weight_decay: float, *, convex: bool, shape: Any) -> float:
    if convex and shape != (1, 1):
        raise ValueError(
            f"convex must be False for {shape[0]} blocks of {shape[1]} layers: the energy is "
            "convex in rho for one block of one layer only"
        )
    if given is None:
        return math.inf if convex and weight_decay else 1.0
    # The decay bounds the homogeneous part by itself.
    return given if given == math.inf and weight_decay else positive("radius", given)


def _reach(
    given: float | None, particles: PyTree, marks: tuple, *, radius: float, convex: bool
) -> float:
    largest = float(jnp.max(norms(particles, unmarked(marks))))
    reach = max(1.0, 2 * largest) if given is None else positive("reach", given)
    outside = largest > reach or float(jnp.max(norms(particles, marks))) > radius
    if convex and outside:
        raise ValueError(
            f"radius and reach must hold the network's own particles, got {radius} and {reach}: "
            "a gap bounds Q(rho) - Q* among measures on what was searched; raise them"
        )
    return reach


def _certificate(
    searches: list[Search], blocks: list[tuple], depth: int, options: dict[str, Any]
) -> Certificate:
    values = np.array([search.value for search in searches])
    block, layer = (int(i) for i in np.unravel_index(np.argmin(values), values.shape))
    best, at = searches[block], float(blocks[block][2].depths[layer])
    value, level = float(values[block, layer]), float(best.level[layer])
    kind = CONVEX if options["convex"] else FIRST_ORDER
    restarts, steps, radius = options["restarts"], options["steps"], options["radius"]
    own = sum(leading_axis(tree, 1) for _, tree, *_ in blocks)
    evaluations = depth * (len(blocks) * restarts * (steps + 2) + own)
    excess = np.array([search.level for search in searches]) - values
    gap = float(np.sum(np.mean(np.maximum(excess, 0), axis=1)))
    if kind == CONVEX:
        meaning = f"Q(rho) - Q* is at most {gap:.3g} if the search found the infimum"
    else:
        meaning = (
            f"adding mass there {'lowers' if value < 0 else 'does not lower'} Q, moving mass to "
            f"what was found at all depths lowers it at the rate {gap:.3g}: evidence, no bound"
        )
    reach = ", ".join(f"{float(search.reach):.3g}" for search in searches)
    statement = (
        f"{kind}: least first variation {value:.3g} (mean over rho_t {level:.3g}) in block {block} "
        f"at depth {at:.3g}; {meaning}. Searched |homogeneous part| <= {radius:.3g}, |rest| <= "
        f"{reach} by {restarts} restarts of {steps} steps, {evaluations} evaluations in all"
    )
    return Certificate(
        kind=kind,
        value=value,
        level=level,
        particle=jax.tree.map(lambda leaf: leaf[layer], best.particle),
        block=block,
        layer=layer,
        depth=at,
        gap=gap,
        searches=tuple(searches),
        restarts=restarts,
        steps=steps,
        evaluations=evaluations,
        radius=radius,
        statement=statement,
    )
