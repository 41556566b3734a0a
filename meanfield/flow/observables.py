"""Observables of a run: functions of theta, saved along the way.

One trap: a compiled program is reused for the same function *objects*; a lambda written anew in
each call compiles anew.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PyTree

from meanfield.flow.risk import as_partial

Observe = Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]] | None
"""A function of theta, a dictionary of them, or nothing."""


def observables(observe: Observe) -> Any:
    """Observables as a tree that may enter ``jit``: a function, or a dictionary of functions.

    Args:
        observe: A function of theta, a dictionary of them, or None.

    >>> observables({"total": sum})["total"]([3.0, 4.0])
    7.0
    """
    if isinstance(observe, Mapping):
        return {name: as_partial(function) for name, function in observe.items()}
    return {} if observe is None else as_partial(observe)


def observed(functions: Any, theta: PyTree) -> Any:
    """The values of observables at theta.

    Args:
        functions: What :func:`observables` returned.
        theta: Parameters.

    >>> observed(observables({"total": sum}), [1.0, 2.0])["total"]
    3.0
    """
    if isinstance(functions, dict):
        return {name: function(theta) for name, function in functions.items()}
    return functions(theta)
