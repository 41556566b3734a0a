r"""The compiled program of a gradient flow: field, step control, what is saved.

    state (theta, D),      rate (-s grad Q, sum s |grad Q|^2)

One trap: diffrax cannot save a tree with empty branches, so the state holds leaves.

References:
    Kidger 2022, *On Neural Differential Equations*, arXiv 2202.02435 (diffrax).
"""

from typing import Any, NamedTuple, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from meanfield import ode
from meanfield.flow.guard import Guarded
from meanfield.flow.observables import packed, unpacked
from meanfield.flow.stopping import event
from meanfield.notation import Scalar
from meanfield.tree import squared_norm


class Flowing(NamedTuple):
    """The state of the solver: leaves of the parameters, and the energy dissipated so far."""

    leaves: list[Array]
    dissipated: Scalar


class Machine(NamedTuple):
    """What a solve is made of: solver, step controller, and the options both kinds share."""

    solver: Any
    controller: Any
    options: dict[str, Any]


def machine(problem: Any, times: Any, tolerances: Any, solver: Any, /) -> Machine:
    """The parts of a solve, for use under ``jit``.

    Args:
        problem: Field, theta, observables and stop conditions.
        times: Save times, of which the span counts.
        tolerances: rtol and atol.
        solver: An adaptive solver.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2)
    >>> parts = machine((field, jnp.ones(()), {}, {}), jnp.arange(2.0), [1e-3, 1e-6], ode.RKC2())
    >>> parts.solver.ledger
    True
    """
    field, theta, functions, stops = problem
    structure = jax.tree.structure(theta)

    def parameters(state):
        return jax.tree.unflatten(structure, state.leaves)

    def vector_field(time, state, field):
        del time
        velocity, dissipation = field.velocity(parameters(state))
        return Flowing(jax.tree.leaves(velocity), dissipation)

    def save(time, state, field):
        del time
        theta = parameters(state)
        return packed(functions, theta), field.energy(theta), state.dissipated

    pid = diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1], norm=_error_norm)
    controller: Any = Guarded(pid, times[-1] - times[0])
    if isinstance(solver, ode.RKC2):
        solver, controller = ode.with_ledger(solver, controller, driving=_driving)
    options = {
        "terms": diffrax.ODETerm(vector_field),
        "args": field,
        "event": event(stops, parameters),
        "adjoint": diffrax.ForwardMode(),
        "throw": False,
    }
    return Machine(solver, controller, options | {"save": save})


def solved(machine: Machine, pending: Any, /, **options: Any) -> diffrax.Solution:
    """The solution by ``diffrax``, with rows at the pending times, the end, and all states.

    Args:
        machine: The parts.
        pending: Times at which rows are saved.
        options: More arguments of ``diffrax.diffeqsolve``.

    >>> from meanfield import flow
    >>> field = flow.gradient_field(lambda theta: theta**2)
    >>> parts = machine((field, jnp.ones(()), {}, {}), jnp.arange(2.0), [1e-3, 1e-6], ode.RKC2())
    >>> begun = {"t0": 0.0, "t1": 1.0, "dt0": 0.1, "y0": Flowing([jnp.ones(())], jnp.zeros(()))}
    >>> round(float(solved(parts, jnp.arange(2.0), **begun).ys[1].leaves[0][0]), 2)
    0.14
    """
    chosen = dict(machine.options)
    saveat = diffrax.SaveAt(
        subs=[diffrax.SubSaveAt(ts=pending, fn=chosen.pop("save")), diffrax.SubSaveAt(t1=True)],
        solver_state=True,
        controller_state=True,
    )
    options = {"stepsize_controller": machine.controller} | options
    return diffrax.diffeqsolve(**chosen, solver=machine.solver, saveat=saveat, **options)


@eqx.filter_jit
def whole(problem, times, first, tolerances, *, solver, max_steps, meter):
    """The solution from the first time to the last in one go, and what was seen.

    Args:
        problem: Field, theta, observables and stop conditions.
        times: Save times.
        first: First step.
        tolerances: rtol and atol.
        solver: An adaptive solver.
        max_steps: Steps after which it gives up.
        meter: Progress meter.

    >>> from meanfield import flow
    >>> problem = flow.gradient_field(lambda theta: theta**2), jnp.ones(()), {}, {}
    >>> given = {"solver": ode.RKC2(), "max_steps": 99, "meter": diffrax.NoProgressMeter()}
    >>> whole(problem, jnp.arange(2.0), jnp.array(0.1), jnp.array([1e-3, 1e-6]), **given)[1]
    {}
    """
    _, theta, functions, _ = problem
    parts = machine(problem, times, tolerances, solver)
    solution = solved(
        parts,
        times,
        t0=times[0],
        t1=times[-1],
        dt0=first,
        y0=Flowing(jax.tree.leaves(theta), jnp.zeros((), times.dtype)),
        progress_meter=meter,
        max_steps=max_steps,
    )
    return solution, seen_in(solution, functions, theta)


def seen_in(solution: diffrax.Solution, functions: Any, theta: Any, /) -> Any:
    """What was observed at the pending times of a solution.

    Args:
        solution: What :func:`solved` returned.
        functions: Observables.
        theta: Parameters, of which the shapes and types count.

    >>> from meanfield import flow
    >>> problem = flow.gradient_field(lambda theta: theta**2), jnp.ones(()), {}, {}
    >>> given = {"solver": ode.RKC2(), "max_steps": 99, "meter": diffrax.NoProgressMeter()}
    >>> found = whole(problem, jnp.arange(2.0), jnp.array(0.1), jnp.array([1e-3, 1e-6]), **given)
    >>> seen_in(found[0], {}, jnp.ones(()))
    {}
    """
    (rows, *_), _ = cast(Any, solution.ys)
    return unpacked(functions, theta, rows)


def _driving(state: Flowing) -> Flowing:
    # What is dissipated moves nothing, and in its own units would drown what does.
    return Flowing([jnp.ones(())] * len(state.leaves), jnp.zeros(()))


def _error_norm(scaled: Flowing) -> Scalar:
    # Among many parameters the one number D would not be heard; yet it is what certifies the run,
    # and an error in stiff directions shows in the energy long before it shows in theta.
    size = sum(leaf.size for leaf in scaled.leaves)
    # Not optimistix.rms_norm: it lays arrays out flat, which gathers them from a mesh of devices.
    mean = squared_norm(scaled.leaves) / size
    root = jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1)), 0)
    return jnp.maximum(root, jnp.abs(scaled.dissipated))
