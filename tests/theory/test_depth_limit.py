import jax
import jax.numpy as jnp
import numpy as np
import pytest
from theory_problems import BLOCKS, INPUTS, KAPPA, MEANS, particles, token_risk

from meanfield import nn, rates, theory

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
LAYERS = np.array([4, 8, 16, 32, 64])  # four halvings of 1/L
KEY = jax.random.key(0)


def grow(tokens, theta, mask):
    return jnp.mean(theta) * tokens


def test_piecewise_constant_growth():
    """Closed form: dT/dt = a(t) T with a constant between depths, and its adjoint."""
    rates_ = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    depths = np.array([0.0, 0.13, 0.4, 0.75, 0.9])
    at = np.array([0.0, 0.1, 0.4, 0.41, 0.8, 1.0])
    pieces = np.clip(at[:, None] - depths, 0, np.diff(depths, append=1.0))
    growth = np.exp(1.5 * pieces @ np.mean(rates_, axis=1))
    options = {"depths": depths, "kappa": 1.5, **TIGHT}
    tokens = theory.limit_tokens([grow], (rates_,), jnp.ones((2, 1, 1)), at, **options)
    np.testing.assert_allclose(tokens[:, 0, 0, 0], growth, rtol=1e-9)
    (states,) = theory.limit_states(
        [grow], lambda final: jnp.sum(final**2) / 2, (rates_,), jnp.ones((2, 1, 1)), at, **options
    )
    np.testing.assert_allclose(states.tokens, tokens, rtol=1e-9)
    # T p is constant along the linear equation, and p = T at the end.
    np.testing.assert_allclose(states.forces[:, 1, 0, 0], 1.5 * growth[-1] ** 2 / growth, rtol=1e-9)


def test_linear_paths_growth():
    """Closed form: dT/dt = a(t) T with a piecewise linear, constant outside its depths."""
    values, depths = np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.5, 0.8])
    at = np.array([0.3, 1.0])
    fine = np.linspace(0, 1, 10_001)
    exponent = np.trapezoid(np.interp(fine, depths, values), fine)
    tokens = theory.limit_tokens(
        [grow],
        (jnp.asarray(values)[:, None],),
        jnp.ones((1, 1, 1)),
        at,
        depths=depths,
        interpolation="linear",
        **TIGHT,
    )
    np.testing.assert_allclose(tokens[-1, 0, 0, 0], np.exp(exponent), rtol=1e-7)


def smooth_paths(depth):
    """Non-centred particles whose paths over depth are smooth, on the depths l/L."""
    start, end = particles(1, depth=1), particles(2, depth=1)
    t = np.arange(depth) / depth

    def path(a, b):
        weight = np.sin(1.5 * t).reshape(-1, *[1] * (a.ndim - 1))
        return (1 - weight) * a + weight * b

    return jax.tree.map(path, start, end)


@pytest.fixture(scope="module")
def limit():
    """Tokens and forces of the limit of the smooth paths, at quarters of the depth."""
    # The paths on 1024 straight pieces are off by a few 1e-7, far below the coarsest differences.
    return theory.limit_states(
        MEANS,
        token_risk,
        smooth_paths(1024),
        INPUTS,
        np.array([0.0, 0.25, 0.5, 0.75]),
        kappa=KAPPA,
        interpolation="linear",
        rtol=1e-7,
        atol=1e-9,
    )


def slope(errors):
    return rates.log_log_slope(LAYERS, np.array(errors)).slope


def test_networks_tend_to_the_limit(limit):
    """Order of convergence: tokens and forces at all depths, first order in 1/L; 1 +- 0.1."""
    errors = {"tokens": [], "forces": []}
    for depth in LAYERS.tolist():
        found = theory.network_states(MEANS, token_risk, smooth_paths(depth), INPUTS, kappa=KAPPA)
        for name, sizes in errors.items():
            quarter = depth // 4
            gaps = [
                jnp.max(jnp.abs(getattr(got, name)[::quarter] - getattr(want, name)))
                for got, want in zip(found, limit, strict=True)
            ]
            sizes.append(float(max(gaps)))
    assert slope(errors["tokens"]) == pytest.approx(-1, abs=0.1)
    assert slope(errors["forces"]) == pytest.approx(-1, abs=0.1)


def test_first_variations_tend_to_the_limit(limit):
    """Order of convergence: dQ/drho at fixed probes and depths, first order in 1/L; 1 +- 0.1."""
    probes = particles(9, depth=4, widths=(3, 3))

    def values(states):
        return np.concatenate(
            [
                theory.first_variation(block.particle, at, probe, weight_decay=0.1).value
                for block, at, probe in zip(BLOCKS, states, probes, strict=True)
            ]
        )

    expected, errors = values(limit), []
    for depth in LAYERS.tolist():
        found = theory.network_states(MEANS, token_risk, smooth_paths(depth), INPUTS, kappa=KAPPA)
        at = [theory.at_depths(states, limit[0].depths) for states in found]
        errors.append(np.max(np.abs(values(at) - expected)))
    assert slope(errors) == pytest.approx(-1, abs=0.1)


def test_network_of_coupled_paths():
    """Order of convergence: particles drawn with coupling "path", one measure at every depth."""
    measure = nn.inits.shifted(nn.inits.scaled(), 0.3)
    blocks = (
        nn.attention(dim=3, head_dim=2, measure=measure),
        nn.mlp(dim=3, activation=jnp.tanh, measure=measure),
    )
    network = nn.network(blocks, depth=int(max(LAYERS)))
    paths = network.init(KEY, width=8, coupling="path")
    means = [block.mean for block in blocks]

    def shallow(depth):
        return jax.tree.map(lambda leaf: leaf[:depth], paths)

    final = theory.limit_tokens(means, shallow(1), INPUTS, [1.0])[0]
    apply = jax.jit(jax.vmap(network.apply, in_axes=(None, 0)))
    errors = [np.max(np.abs(apply(shallow(depth), INPUTS) - final)) for depth in LAYERS.tolist()]
    assert slope(errors) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": [0.5, 1.2]}, r"at must be a vector of depths in \[0, 1\], .* got \[0.5, 1.2\]"),
        ({"at": []}, "at must be a vector of depths"),
        ({"at": [0.5, 0.1]}, r"at must increase, got \[0.5, 0.1\]; sort them"),
        ({"depths": [0.0]}, "depths must be one for each of the particles' 2 layers, got 1"),
        ({"depths": [0.0, np.nan]}, "depths must be a vector of depths"),
        ({"interpolation": "lineal"}, "interpolation must be one of .*did you mean 'linear'"),
        ({"rtol": 0.0}, "rtol must be a finite number > 0, got 0.0"),
        ({"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
        ({"max_steps": 2}, "the depth ODE must be solvable to depth 1.*raise max_steps"),
        ({"kappa": (1.0, 2.0)}, "kappa must be one number or 1, got 2"),
        ({"particles": ()}, "there must be one tree of particles for each mean.*got 0 trees and 1"),
        ({"particles": (jnp.ones((2, 0)),)}, "particles must have leading axes .*widths \\[0\\]"),
        ({"tokens": jnp.full((1, 1, 1), jnp.nan)}, "tokens must be finite"),
    ],
)
def test_refusals(options, message):
    """Closed form: got, expected, remedy."""
    options = {
        "particles": (jnp.ones((2, 3)),),
        "tokens": jnp.ones((1, 1, 1)),
        "at": [1.0],
        **options,
    }
    inputs = [options.pop(name) for name in ("particles", "tokens", "at")]
    with pytest.raises(ValueError, match=f"^{message}"):
        theory.limit_tokens([grow], *inputs, **options)
