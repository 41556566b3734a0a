"""Both kernels on text and on Pathfinder, end to end at the size of the suite."""

import dataclasses
import json
import re
from typing import Any

import jax
import numpy as np
import pytest
from helpers import redrawn

from experiments import _cli
from experiments.attention_kernels import (
    pathfinder,
    race,
    race_facts,
    race_ladder,
    race_report,
    text,
    training,
)
from meanfield import nn, store

TINY = text.PRESETS["tiny"]
NO_TOKENS: Any = None


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
    for curve in ("train_loss", "valid_loss", "test_loss", "accuracy"):
        assert run.arrays[curve].shape == (2, TINY.seeds, TINY.saves)
        assert np.all(np.isfinite(run.arrays[curve]))
    assert run.arrays["steps"].tolist() == [0, 4, 8, 12, 16]
    rungs = len({"text": text, "pathfinder": pathfinder}[name].PRESETS["tiny"].ladder)
    assert run.arrays["rung_losses"].shape == (2, rungs)
    samples = {"text": 12, "pathfinder": 40}[name]
    assert run.arrays["late"].shape == run.arrays["whole"].shape == (2, TINY.seeds, samples)
    # The last quarter of 4 segments: two times.
    late = run.arrays["accuracy"][..., -2:].mean(-1)
    np.testing.assert_allclose(run.arrays["late"].mean(-1), late, rtol=1e-6)
    # At the start softmax and Gaussian are two kernels on the same parameters.
    assert np.all(run.arrays["train_loss"][0, :, 0] != run.arrays["train_loss"][1, :, 0])


@pytest.mark.parametrize("name", ["text", "pathfinder"])
def test_the_figure_is_drawn_again(finished, tmp_path, name):
    """Equality: a figure drawn from record and manifest has the bytes of that of the run."""
    assert redrawn(finished[name][0], tmp_path / "again") == {"curves.png"}


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
    value = float(re.findall(r"Dashed: [a-z ]+, ([0-9.]+) %", page)[0]) / 100
    found = race_facts.facts(run.arrays, baseline=value)
    assert said in page
    assert race_facts.points(found.higher) in page
    assert race_facts.percent(found.end[1]) in page
    assert re.search(r"(Neither kernel|Only \w+|Both kernels) surely beats? ", page)
    assert f"{100 * found.stopped[0].mean():.1f}" in page
    if name == "text":
        assert "no ladder of rates was tried" in page
    else:
        assert race_report.edges(run.arrays) in page
    word = {True: "agrees", False: "does not agree", None: "cannot tell"}
    assert f"This run **{word[race_facts.verdict(found)[0]]}**" in page
    assert "standard parametrisation" in page


def test_seeds_train_as_if_alone():
    """Numpy loop: seeds 1 and 2 step by step, each on its own minibatches at its own rate."""
    config = training.Training(seeds=2, batch=3, steps=4, saves=3, measured=4, learning_rate=0.1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.integers(0, 2, 7)
    model = Linear()
    task, start = training.Task(NO_TOKENS, x, y, x[:5], y[:5]), training.initial(config, model)
    lanes = training.Lanes((1, 2), (1.0, 3.0))
    _, found = training.stage(config, task, model, start, label=None, lanes=lanes, samples=True)
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
            weights = weights - 0.1 * lanes.factors[seed - 1] * gradient / max(
                1, np.linalg.norm(gradient)
            )
        losses.append(cross_entropy(weights, x[:4], y[:4]))
        np.testing.assert_allclose(found["train_loss"][seed - 1], losses, rtol=1e-12)
        right = np.argmax(x[:5] @ weights, axis=1) == y[:5]
        assert found["right"][seed - 1, :, -1].tolist() == right.tolist()
        np.testing.assert_allclose(found["accuracy"][seed - 1, -1], np.mean(right), rtol=1e-12)


def test_the_ladder_chooses_on_samples_that_nothing_else_holds():
    """Numpy loop: the validation loss of each rate; one that diverged loses."""
    config = training.Training(
        seeds=2, batch=2, steps=8, saves=3, trial=0.5, held_out=3, measured=2, clip=1e30,
        learning_rate=0.1, ladder=(0.5, 2.0, 1e200),
    )  # fmt: skip
    assert race_ladder.trial_steps(config) == 4
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 2)), rng.integers(0, 2, 8)
    model = Steep()
    task = training.Task(NO_TOKENS, x[:5], y[:5], x, y)
    start = np.asarray(model.init(jax.random.key(race_ladder.SEED), width=(2, 128)))
    found = race_ladder.choice(config, task, model, start, (x[5:], y[5:]), label=None)
    order = np.random.default_rng(race_ladder.SEED)
    chosen = np.concatenate([order.permutation(5) for _ in range(2)])[:8].reshape(4, 2)
    for factor, loss in zip(config.ladder[:2], found.losses[:2], strict=True):
        weights = start
        for rows in chosen:
            odds = np.exp(x[rows] @ weights**3)
            gradient = x[rows].T @ (odds / odds.sum(1, keepdims=True) - np.eye(2)[y[rows]]) / 2
            weights = weights - 0.1 * factor * gradient * 3 * weights**2
        np.testing.assert_allclose(loss, cross_entropy(weights**3, x[5:], y[5:]), rtol=1e-10)
    assert np.isnan(found.losses[2])
    assert found.factor == config.ladder[int(np.argmin(found.losses[:2]))]


def test_validation_comes_out_of_the_training_samples():
    """Invariance: every training sample is in one of the two parts; the test part is as it was."""
    config = training.Training(batch=4, held_out=3)
    x, y = np.arange(9), np.arange(9) % 2
    apart, (held, labels) = race.validated(config, training.Task(NO_TOKENS, x, y, x + 50, y))
    assert sorted([*apart.x_train, *held]) == x.tolist()
    assert len(held) == 3
    assert np.all(labels == y[held])
    assert np.all(apart.x_test == x + 50)


class Linear:
    """A model without tokens: logits x W."""

    def init(self, key, *, width):
        return jax.random.normal(key, (*width[:1], 2))

    def apply(self, weights, x):
        return x @ weights


class Steep(Linear):
    """Logits x W^3: too long a step leaves the numbers that are finite."""

    def apply(self, weights, x):
        return x @ weights**3


def cross_entropy(weights, x, y):
    logits = x @ weights
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])


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
        ({"ladder": ()}, "ladder must hold positive numbers that rise, got .."),
        ({"ladder": (1.0, 0.3)}, "ladder must hold positive numbers that rise"),
        ({"trial": 0.0}, "trial must be in .0, 1., got 0.0"),
        ({"held_out": 0}, "held_out must be an integer >= 1, got 0"),
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
        (["text", "--preset", "paper"], "length must be at most 512, got 4,000; give --data"),
        (["text", "--preset", "paper", "--seeds", "2"], "without --data reviews are synthetic"),
        (["text", "--preset", "paper", "--length", "96"], "reviews must be at most 20,000"),
        (["text", "--preset", "tiny", "--batch", "49"], "must together be at most the 64 training"),
        (["text", "--data", str(tmp_path / "no")], "which does not exist"),
        (["pathfinder", "--data", str(tmp_path)], "got no metadata"),
        (["pathfinder", "--preset", "tiny", "--spread", "9"], "size must be >= 4 spread + 2"),
        (["pathfinder", "--preset", "tiny", "--patch", "5"], "patch must divide the image"),
    ):
        assert _cli.main([*words, "--out", str(tmp_path / "out"), "--quiet"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
