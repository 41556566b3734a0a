import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import nn
from meanfield.nn import mixing
from meanfield.nn.dot_product import attended

TOKENS, DIM, HEAD_DIM = 5, 4, 2


@pytest.fixture
def gpu(monkeypatch):
    """A device that answers like a GPU, whose attention is computed here."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(mixing, "_capability", lambda: 8.0)
    seen = []

    def attend(implementation):
        seen.append(implementation)
        return attended("xla")

    monkeypatch.setattr(mixing, "attended", attend)
    mixing._warned.cache_clear()
    return seen


def update(dtype="bfloat16", head_dim=HEAD_DIM, mask=None, **options):
    """The update of some tokens by three heads."""
    block = nn.attention(dim=DIM, head_dim=head_dim, **options)
    heads = jax.vmap(block.draw)(jax.random.split(jax.random.key(0), 3))
    tokens = jax.random.normal(jax.random.key(1), (TOKENS, DIM))
    tokens, heads = jax.tree.map(lambda leaf: leaf.astype(dtype), (tokens, heads))
    return np.asarray(block.mean(tokens, heads, mask), float)


@pytest.mark.parametrize("kernel", [nn.softmax(), nn.gaussian(), nn.gaussian(normalize=True)])
def test_fused_where_it_can_be_had(kernel, gpu):
    """Independent library: jax.nn's attention, in sixteen bits; no other precision, no "plain"."""
    found, plain = update(kernel=kernel), update(kernel=kernel, fused="plain")
    assert gpu == ["cudnn"]
    np.testing.assert_allclose(found, plain, atol=0.02 * np.max(np.abs(plain)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update("float32", kernel=kernel)
    update(kernel=kernel, fused="cudnn", mask=nn.causal_mask(TOKENS))
    assert gpu == ["cudnn"] * 2


def test_plain_without_a_word_on_a_processor(monkeypatch):
    """Closed form: nothing fused is tried, in any precision."""
    monkeypatch.setattr(mixing, "attended", lambda _: pytest.fail("fused"))
    for dtype in ("bfloat16", "float64"):
        np.testing.assert_array_equal(update(dtype), update(dtype, fused="plain"))


UNKNOWN = {
    "linear": ({"kernel": nn.linear()}, "the kernel softmax or gaussian, got linear;"),
    "own": ({"kernel": lambda q, k, mask=None: q @ k.T}, "softmax or gaussian, got <lambda>"),
    "wide": ({"head_dim": 128, "kernel": nn.gaussian()}, "head_dim <= 122 for this kernel on this"),
    "odd": ({"head_dim": 128}, "head_dim <= 127 for this kernel on this GPU, got 128"),
    "range": ({"dtype": "float16", "kernel": nn.gaussian()}, "bfloat16 for a Gaussian kernel, got"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_one_warning_for_each_cause(case, gpu):
    """Closed form: the plain form, and a sentence the first time; asked for by name, a refusal."""
    options, words = UNKNOWN[case]
    with pytest.warns(UserWarning, match=f"takes the plain form: a fused one needs .*{words}"):
        update(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(**options)
        update(**options, fused="plain")
    with pytest.raises(ValueError, match=f'^fused="cudnn" needs .*{words}.*fused="plain"'):
        update(**options, fused="cudnn")
    assert not gpu


def test_old_gpu(gpu, monkeypatch):
    """Closed form: cuDNN's attention begins with compute capability 8.0; larger heads with 9.0."""
    monkeypatch.setattr(mixing, "_capability", lambda: 7.5)
    with pytest.warns(UserWarning, match=r"compute capability 8.0, got 7.5"):
        update()
    monkeypatch.setattr(mixing, "_capability", lambda: 9.0)
    update(head_dim=128)
    assert gpu == ["cudnn"]


def test_capability_of_a_device(monkeypatch):
    """Closed form: read off the device; 0 where it has none, or a name of another maker."""
    assert mixing._capability() == 0.0
    for given, expected in (("9.0", 9.0), ("gfx90a", 0.0)):
        device = type("Device", (), {"compute_capability": given})()
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        assert mixing._capability() == expected


def test_refused_forms():
    """Closed form: what was got, and what to do."""
    with pytest.raises(ValueError, match="must be one of cudnn, plain, got .cudn.; did you mean"):
        nn.attention(dim=DIM, head_dim=HEAD_DIM, fused="cudn")
    with pytest.raises(ValueError, match='^fused="cudnn" needs an NVIDIA GPU, got the device cpu;'):
        update(fused="cudnn")


def test_refused_precision(gpu):
    """Closed form: cuDNN computes in sixteen bits."""
    with pytest.raises(ValueError, match="bfloat16 or float16, got float32: nn.network.compute="):
        update("float32", fused="cudnn")


def test_refused_rows():
    """Closed form: rows are positive, and only for kernels that say they have them."""
    with pytest.raises(ValueError, match="^rows must be an integer >= 1, got 0"):
        nn.attention(dim=2, head_dim=1, rows=0)
    with pytest.raises(
        ValueError, match=r"got rows=4 and looks_at_all_queries: .*nn.RowKernel\(weights"
    ):
        nn.attention(dim=2, head_dim=1, rows=4, kernel=looks_at_all_queries([]))
    assert nn.attention(dim=2, head_dim=1, rows=4).name == "heads"


def looks_at_all_queries(seen):
    def kernel(queries, keys, mask=None):
        seen.append(len(queries))
        return queries @ keys.T / (1 + jnp.sum(queries**2))

    return kernel
