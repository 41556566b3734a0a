"""Problems and solves shared by the tests of the solvers."""

import diffrax
import jax.numpy as jnp
import numpy as np

from meanfield import ode


def solve(field, y0, span=(0.0, 1.0), *, solver=None, rtol=1e-5, atol=1e-8, **options):
    """One adaptive solve with everything saved at its end."""
    controller = diffrax.PIDController(rtol=rtol, atol=atol)
    settings = {
        "dt0": None,
        "stepsize_controller": controller,
        "max_steps": 100_000,
        "saveat": diffrax.SaveAt(t1=True, solver_state=True, controller_state=True),
    } | options
    solver = ode.RKC2() if solver is None else solver
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, *span, settings.pop("dt0"), y0, **settings
    )


def diffusion(points):
    """The heat equation on (0, 1) by second differences, and its exact discrete solution."""
    grid = np.arange(1, points + 1) / (points + 1)
    rate = 4 * (points + 1) ** 2 * np.sin(np.pi / 2 / (points + 1)) ** 2

    def field(t, y, args):
        padded = jnp.pad(y, 1)
        return (padded[2:] - 2 * y + padded[:-2]) * (points + 1) ** 2

    def exact(t):
        return np.exp(-rate * t) * np.sin(np.pi * grid)

    return field, exact


def robertson(t, y, args):
    """Robertson's chemical kinetics: rates of 0.04, 1e4 and 3e7."""
    slow, fast = 0.04 * y[0] - 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return jnp.stack([-slow, slow - fast, fast])


def chain(t, y, args):
    """DETEST B: a reaction with a source, nonlinear and nonautonomous, three time scales."""
    a, b, c = y
    return jnp.stack([-a + b * c, -50.0 * b + jnp.cos(t), -400.0 * (c - a * a) - c * c * c])


def brusselator(t, y, args):
    """Brusselator with diffusion on a ring: nonlinear, unstable directions, a complex spectrum."""
    u, v = y["u"], y["v"]

    def spread(x):
        return 0.02 * len(x) ** 2 * (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1))

    return {"u": 1 + u * u * v - 4 * u + spread(u), "v": 3 * u - u * u * v + spread(v)}
