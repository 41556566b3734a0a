"""Both kernels on text and on Pathfinder, end to end at the size of the suite."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import _cli
from experiments.attention_kernels import pathfinder, race_facts, text, training
from meanfield import nn, store

TINY = text.PRESETS["tiny"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One tiny run of each experiment through the command line, the text from a user's file."""
    root = tmp_path_factory.mktemp("runs")
    rows = [{"text": f"a {'good' if i % 2 else 'bad'} film", "label": i % 2} for i in range(60)]
    (root / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words in (
        ["text", "--data", str(root / "mine.jsonl")],
        ["pathfinder"],
    ):
        out = ["--out", str(root / words[0]), "--quiet", "--preset", "tiny"]
        assert _cli.main([*words, *out]) == 0
    return {name: (root / name, store.load_run(root / name)) for name in ("text", "pathfinder")}


@pytest.mark.parametrize("name", ["text", "pathfinder"])
def test_a_run_leaves_its_record_and_figure(finished, name):
    """Closed form: the shapes that the configuration asks for."""
    out, run = finished[name]
    names = {path.name for path in out.iterdir()}
    assert names == {"record.npz", "manifest.json", "report.md", "curves.png"}
    for curve in ("train_loss", "test_loss", "accuracy"):
        assert run.arrays[curve].shape == (2, TINY.seeds, TINY.saves)
        assert np.all(np.isfinite(run.arrays[curve]))
    assert run.arrays["steps"].tolist() == [0, 4, 8, 12, 16]
    # At the start softmax and Gaussian are two kernels on the same parameters.
    assert np.all(run.arrays["train_loss"][0, :, 0] != run.arrays["train_loss"][1, :, 0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "reviews in mine.jsonl (48 training, 12 test reviews)"),
        ("pathfinder", "paths of 3 dashes, our own generator (64 training, 40 test images), 0 di"),
    ],
)
def test_the_report_says_what_was_measured(finished, name, said):
    """Closed form: the facts of the record, and the verdict that follows from them."""
    out, run = finished[name]
    page = (out / "report.md").read_text(encoding="utf-8")
    samples = {"text": 12, "pathfinder": 40}[name]
    found = race_facts.facts(run.arrays, test_samples=samples)
    assert said in page
    assert race_facts.points(found.higher) in page
    assert race_facts.percent(found.end[1]) in page
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    assert f"This run **{word[race_facts.verdict(found)[0]]}**" in page
    assert "standard parametrisation" in page


def test_seeds_train_as_if_alone():
    """Numpy loop: seeds 1 and 2 one step after another, each on the minibatches of its epochs."""
    config = training.Training(seeds=2, batch=3, steps=4, saves=3, measured=4, learning_rate=0.1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.integers(0, 2, 7)
    model = Linear()
    found = training.trained(config, training.Task(None, x, y, x[:5], y[:5]), model)
    for seed in (1, 2):
        order = np.random.default_rng(seed)
        chosen = np.concatenate([order.permutation(7) for _ in range(2)])[:12].reshape(4, 3)
        weights = np.asarray(model.init(jax.random.key(seed), width=(2, 128)))
        losses = []
        for step, rows in enumerate(chosen):
            if step % 2 == 0:
                losses.append(cross_entropy(weights, x[:4], y[:4]))
            odds = np.exp(x[rows] @ weights)
            gradient = x[rows].T @ (odds / odds.sum(1, keepdims=True) - np.eye(2)[y[rows]]) / 3
            weights = weights - 0.1 * gradient / max(1, np.linalg.norm(gradient))
        losses.append(cross_entropy(weights, x[:4], y[:4]))
        np.testing.assert_allclose(found["train_loss"][seed - 1], losses, rtol=1e-12)
        right = np.mean(np.argmax(x[:5] @ weights, axis=1) == y[:5])
        np.testing.assert_allclose(found["accuracy"][seed - 1, -1], right, rtol=1e-12)


class Linear:
    """A model without tokens: logits x W."""

    def init(self, key, *, width):
        return jax.random.normal(key, (*width[:1], 2))

    def apply(self, weights, x):
        return x @ weights


def cross_entropy(weights, x, y):
    logits = x @ weights
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])


def made_up(*, end, rise, seeds=3, saves=9):
    """Curves whose difference between kernels is the same for every seed, up to a little noise."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, saves)
    softmax = 0.6 + 0.1 * grid + 0.001 * rng.normal(size=(seeds, 1))
    gaussian = softmax + rise * np.sin(np.pi * grid) + end * (grid > 0.7)
    accuracy = np.stack([softmax, gaussian + 0.001 * rng.normal(size=(seeds, 1))])
    return {"steps": np.arange(saves), "accuracy": accuracy, "train_loss": 1 - accuracy}


@pytest.mark.parametrize(
    ("end", "rise", "expected"),
    [(0.1, 0.1, True), (-0.1, 0.0, False), (0.0, -0.1, False), (0.1, -0.2, False), (0, 0, None)],
)
def test_the_verdict_follows_the_intervals(end, rise, expected):
    """Closed form: differences that are known up to a tenth of a point."""
    arrays = made_up(end=end, rise=rise)
    found = race_facts.facts(arrays, test_samples=1000)
    assert race_facts.verdict(found)[0] is expected
    direct = (arrays["accuracy"][1] - arrays["accuracy"][0])[:, -3:].mean()
    np.testing.assert_allclose(found.higher.mean, direct, atol=1e-12)
    arrays["accuracy"] = arrays["accuracy"] * 0 + 0.5
    assert race_facts.verdict(race_facts.facts(arrays, test_samples=9))[0] is None


def test_a_run_that_diverged_leaves_what_it_had():
    """Closed form: comparison at the last time that all runs reached, and no verdict."""
    arrays = made_up(end=0.1, rise=0.1)
    arrays["accuracy"][1, 2, 6:] = np.nan
    found = race_facts.facts(arrays, test_samples=100)
    assert (found.last, found.completed) == (5, False)
    assert race_facts.verdict(found)[0] is None


def test_the_published_sizes():
    """Closed form: layers, dimension, heads, neurons and positions as the papers print them."""
    for module, length in ((text, 4000), (pathfinder, 1024)):
        config = module.PRESETS["paper"]
        embedding = nn.byte_text(length=length, dim=config.dim)
        model = training.model_of(config, embedding, "gaussian")
        theta = jax.eval_shape(
            lambda key, model=model, config=config: model.init(
                key, width=(config.heads, config.neurons)
            ),
            jax.random.key(0),
        )
        assert theta.blocks[0].query.shape == (2, 2, 64, 32)
        assert theta.blocks[1].weight_in.shape == (2, 128, 64)
        assert theta.embedding["positions"].shape == (length, 64)
    assert text.PRESETS["paper"].optimizer == "sgd"
    assert pathfinder.PRESETS["paper"].optimizer == "adam"
    assert min(text.PRESETS["default"].seeds, pathfinder.PRESETS["default"].seeds) >= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"steps": 17}, "steps must be a multiple of saves - 1 = 4, got 17"),
        ({"momentum": 1.0}, "momentum must be in .0, 1., got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0"),
        ({"chunk": 0}, "chunk must be an integer >= 1, got 0"),
        ({"length": 0}, "length must be an integer >= 1, got 0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_refusals_of_a_run(tmp_path, capsys):
    """House rule: status 2, one sentence, no directory."""
    for words, message in (
        (["text", "--preset", "paper"], "the paper preset needs --data with reviews, got none"),
        (["text", "--preset", "tiny", "--batch", "65"], "batch must be at most the 64 training"),
        (["text", "--data", str(tmp_path / "no")], "which does not exist"),
        (["pathfinder", "--data", str(tmp_path)], "got no metadata"),
        (["pathfinder", "--preset", "tiny", "--spread", "9"], "size must be >= 4 spread + 2"),
        (["pathfinder", "--preset", "tiny", "--patch", "5"], "patch must divide the image"),
    ):
        assert _cli.main([*words, "--out", str(tmp_path / "out"), "--quiet"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
