"""The account of a solve: what it cost, rejected steps included.

Trap: a product for the spectral radius is a difference of two values of the field, one of which the
step needs anyway: it costs one evaluation, and is among the evaluations already.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
from jaxtyping import Array

from meanfield.ode.ledger import Ledger, LedgerState
from meanfield.ode.stabilized import RKC2, RKC2State


def with_ledger(
    solver: RKC2, controller, /, *, driving: Callable | None = None
) -> tuple[RKC2, Ledger]:
    """A solver and a controller that together account for rejected steps too.

    The controller also never proposes a step longer than `max_stages` can make stable.

    Args:
        solver: the solver.
        controller: an adaptive controller, such as `diffrax.PIDController`.
        driving: as in `RKC2`, if the solver has none.

    Returns:
        The pair, for `diffrax.diffeqsolve(..., solver=..., stepsize_controller=...)`.

    >>> pair = with_ledger(RKC2(), diffrax.PIDController(rtol=1e-3, atol=1e-6))
    >>> pair[0].ledger
    True
    """
    options: dict[str, Any] = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}
    options |= {"ledger": True, "driving": solver.driving or driving}
    return RKC2(**options), Ledger(controller)


def work(solution: diffrax.Solution, /) -> dict[str, Array]:
    """What a solve with RKC2 cost.

    Args:
        solution: of a solve with `SaveAt(solver_state=True)` and, with a ledger,
            `SaveAt(controller_state=True)` besides.

    Returns:
        `evaluations` of the field, all of them; `products`, those of them that were spent on the
        spectral radius; `stages` of accepted steps; `largest_stages` of one step. Without a
        ledger, rejected steps are left out of all. Empty for other solvers.

    >>> term, save = diffrax.ODETerm(lambda t, y, a: -y), diffrax.SaveAt(t1=True, solver_state=True)
    >>> solved = diffrax.diffeqsolve(term, RKC2(), 0.0, 1.0, 0.5, 1.0, saveat=save)
    >>> int(work(solved)["evaluations"])
    6
    """
    state, account = solution.solver_state, solution.controller_state
    if not isinstance(state, RKC2State):
        return {}
    counts = state.work._asdict()
    if isinstance(account, LedgerState):
        counts |= {"evaluations": account.evaluations, "products": account.products}
    return counts
