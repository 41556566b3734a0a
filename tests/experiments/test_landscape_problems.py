"""Tasks, data and configurations of the landscape experiment."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import _cli
from experiments.attention_kernels import landscape, landscape_problems, landscape_stages

TINY = landscape.PRESETS["tiny"]


def test_the_published_sizes_and_both_tasks():
    """Closed form: layers, dimension, heads and neurons as the paper prints them; 41 points."""
    paper, default = landscape.PRESETS["paper"], landscape.PRESETS["default"]
    assert (paper.depth, paper.dim, paper.heads, paper.neurons) == (2, 64, 2, 128)
    assert (paper.length, paper.tokens, paper.points, default.points) == (
        4000,
        "grey_values",
        41,
        41,
    )
    assert min(paper.seeds, default.seeds) >= 3
    assert default.tasks == ("text", "pathfinder")
    problem = landscape_problems.problem(TINY, "pathfinder")
    assert (problem.training.optimizer, problem.task.x_train.shape) == ("adam", (40, 16, 16, 1))
    shape = jax.eval_shape(
        problem.models["gaussian"].apply,
        jax.eval_shape(lambda key: problem.models["gaussian"].init(key, width=(2, 8)),
                       jax.random.key(0)),
        problem.task.x_train[0],
    ).shape  # fmt: skip
    assert shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 1}, "seeds must be an integer >= 2, got 1"),
        ({"text_steps": 5}, "text_steps must be a multiple of saves - 1 = 2, got 5"),
        ({"span": 0.0}, "span must be a finite number > 0"),
        ({"tasks": ()}, "tasks must be one or more different ones"),
        ({"tasks": ("images",)}, "tasks must be"),
        ({"directions": ("random", "random")}, "directions must be one or more different ones"),
        ({"lanczos": 0}, "lanczos must be an integer >= 1, got 0"),
    ],
)
def test_bad_configurations(change, message):
    """Theorem: no run has these."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_refusals_of_a_run(tmp_path, capsys):
    """House rule: status 2, one sentence, no directory."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["--measured", "41"], "batch and measured must be at most the 40 training samples"),
        (["--tasks", "pathfinder", "--patch", "5"], "patch must divide the image"),
        (["--data", str(tmp_path / "empty")], "data must be an aclImdb folder or .tar.gz"),
        (["--data", str(tmp_path / "nowhere")], "data must be reviews or Pathfinder images"),
        (["--data", str(tmp_path)], "tasks must include pathfinder, whose data"),
    ):
        out = ["--out", str(tmp_path / "out"), "--quiet"]
        assert _cli.main(["landscape", "--preset", "tiny", *words, *out]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_run_that_diverged_is_refused():
    """House rule: what diverged is named, with the remedy."""
    theta = {"a": np.array([1.0, np.nan])}
    with pytest.raises(ValueError, match="stage 2 of text under gaussian must stay finite"):
        landscape_stages.finite(theta, "stage 2 of text under gaussian")


def reviews(path):
    """A few reviews in a file of their own."""
    rows = [{"text": f"Film {i}.", "label": i % 2} for i in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def images(path):
    """A few images of 8 x 8, each of one grey value, sorted by label."""
    x = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None, None], (50, 8, 8))
    y = np.arange(50) >= 25
    np.savez(path, x_train=x, y_train=y.astype(int), x_test=x[::5], y_test=y[::5].astype(int))


def test_a_users_data_by_what_they_hold(tmp_path):
    """Closed form: a file of images, one of reviews, and a folder that holds both."""
    both = tmp_path / "both"
    (both / "text").mkdir(parents=True)
    tasks = ("text", "pathfinder")
    for place in (tmp_path / "r.jsonl", both / "text" / "train.jsonl", both / "text/test.jsonl"):
        reviews(place)
    for place in (tmp_path / "i.npz", both / "pathfinder.npz"):
        images(place)
    sources = landscape_problems.sources
    assert sources(None, tasks) == {}
    assert sources(tmp_path / "r.jsonl", tasks) == {"text": tmp_path / "r.jsonl"}
    assert sources(tmp_path / "i.npz", tasks) == {"pathfinder": tmp_path / "i.npz"}
    found = sources(both, tasks)
    assert found == {"text": both / "text", "pathfinder": both / "pathfinder.npz"}
    texts, drawn = (landscape_problems.problem(TINY, name, found[name]) for name in tasks)
    assert (texts.task.x_train[0, :5] - 1).tolist() == list(b"Film ")
    assert (len(texts.task.y_train), len(texts.task.y_test)) == (40, 50)
    assert "reviews in text (50 training, 50 test reviews); 40 and 50 are used" in texts.data
    assert texts.checksums.keys() == {"train.jsonl", "test.jsonl"}
    # Drawn in no order, each grey value with its own label: those of 1 are the brighter ones.
    greys, labels = drawn.task.x_train[:, 0, 0, 0], drawn.task.y_train
    assert (len(set(greys.tolist())), drawn.task.x_train.shape) == (40, (40, 8, 8, 1))
    assert greys[labels == 1].min() > greys[labels == 0].max()
    assert 0 < labels[:10].mean() < 1
    name = "Pathfinder, pathfinder.npz (50 training, 10 test images), 8 × 8; 40 and 10 are used"
    assert drawn.data == name
