import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import KERNELS, problems, weights_by_loop
from helpers import round_off

from meanfield import theory
from meanfield.theory.attention_layer import check_layer


@pytest.mark.parametrize("name", KERNELS)
def test_layer_against_loops(name):
    """Numpy loop: B, output and risk, token by token and head by head."""
    layer, inputs, targets = problems(0, samples=3, outputs=1)
    found = np.zeros(targets.shape)
    features = np.zeros((6, 2, 5))
    for i, x in enumerate(np.asarray(inputs)):
        for h in range(2):
            query, key, value, output = (np.asarray(leaf[h]) for leaf in layer)
            mixed = weights_by_loop(name, x @ query, x @ key) @ x
            features[2 * i : 2 * i + 2, h] = mixed
            found[i] += mixed @ value @ output
    bound = {"rtol": round_off(), "atol": round_off()}
    kernel = KERNELS[name]
    np.testing.assert_allclose(theory.attention_features(kernel, layer, inputs), features, **bound)
    np.testing.assert_allclose(theory.attention_output(kernel, layer, inputs), found, **bound)
    total = np.sum((found - np.asarray(targets)) ** 2) / 2
    for average, share in ((False, 1), (True, 1 / 3)):
        risk = theory.attention_risk(kernel, inputs, targets, average=average)
        np.testing.assert_allclose(risk(layer), share * total, rtol=round_off())


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_in_the_values(name):
    """Closed form: grad_{W_h^V} f = B_h' E (W_h^O)'."""
    layer, inputs, targets = problems(1)
    kernel = KERNELS[name]
    found = jax.grad(theory.attention_risk(kernel, inputs, targets))(layer).value
    error = (theory.attention_output(kernel, layer, inputs) - targets).reshape(4, 2)
    features = theory.attention_features(kernel, layer, inputs)
    expected = np.einsum("zmd,zc,mkc->mdk", features, error, layer.output)
    np.testing.assert_allclose(found, expected, rtol=round_off(), atol=round_off())


LAYER, INPUTS, TARGETS = problems(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": INPUTS[..., :4]}, "^sizes must match and be >= 1: .* got "),
        ({"layer": LAYER._replace(output=LAYER.output[:1])}, "^sizes must match"),
        ({"layer": LAYER._replace(key=LAYER.key[:, :, :1])}, "^sizes must match"),
        ({"layer": LAYER._replace(value=LAYER.value[0])}, r"^parameters must be \[heads D k\]"),
        ({"inputs": INPUTS[0]}, r"and inputs \[N n D\], got"),
        ({"inputs": INPUTS[:0], "targets": TARGETS[:0]}, "^sizes must match and be >= 1"),
        ({"targets": TARGETS[:1]}, r"^targets must be \[N n c\] = \[2, 2, 2\] .* got \[1, 2, 2\]"),
        ({"targets": TARGETS.at[0, 0, 0].set(jnp.nan)}, "^targets must be finite, got 1 NaN"),
        ({"layer": LAYER._replace(key=LAYER.key / 0)}, "^the layer must be finite"),
        ({"inputs": INPUTS.astype(int)}, "^inputs must be of floating-point numbers, got int64; c"),
        ({"targets": TARGETS > 0}, "^targets must be of floating-point numbers, got bool"),
    ],
)
def test_refused_sizes(change, message):
    """Closed form: parameters and data that do not fit."""
    given = {"layer": LAYER, "inputs": INPUTS, "targets": TARGETS} | change
    with pytest.raises(ValueError, match=message):
        check_layer(given["layer"], given["inputs"], given["targets"])


def test_refused_names():
    """Closed form: a name that is none, and none at all."""
    with pytest.raises(ValueError, match="^trained must be one of .*; did you mean 'value'"):
        theory.pl_constant(KERNELS["softmax"], LAYER, INPUTS, trained=["valu"])
    with pytest.raises(ValueError, match="^trained must name at least one parameter, got none"):
        theory.pl_constant(KERNELS["softmax"], LAYER, INPUTS, trained=[])
