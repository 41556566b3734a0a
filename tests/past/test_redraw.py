import json
import os

import pytest
import toy_program

from meanfield import command, store


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ran("toy", "--out", "a", "--heads", "3", "5", "--quiet") == 0
    return tmp_path


def ran(*words):
    return command.main({"toy": "toy_program"}, words, prog="python -m toys", kind="toy")


def refused(capsys, *words):
    """The one sentence of a drawing that is refused."""
    capsys.readouterr()
    assert ran("draw", *words) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def test_figures_come_from_record_and_choices(capsys, place):
    """Equality: the figure of the run, in its directory and elsewhere; the run stays a run."""
    figure = place / "a" / "figure.txt"
    before = figure.read_text(encoding="utf-8")
    assert before == "[3, 5] softmax"
    figure.unlink()
    (place / "a" / "report.md").unlink()
    capsys.readouterr()
    assert ran("draw", "a") == 0
    assert capsys.readouterr().out == "figure: a/figure.txt\n"
    assert ran("draw", "a", "--out", "new/b", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [os.path.relpath(path, place) for path in said["figures"]] == ["new/b/figure.txt"]
    for path in (figure, place / "new" / "b" / "figure.txt"):
        assert path.read_text(encoding="utf-8") == before
    assert ran("show", "a") == 0
    assert store.load_run("a").manifest["experiment"] == "toy"


def test_a_figure_that_fails_replaces_none(monkeypatch, place):
    """House rule: whole figures or the old ones, and no leavings."""

    def fails(arrays, config, out_dir):
        (out_dir / "figure.txt").write_text("half", encoding="utf-8")
        raise KeyError("a bug")

    monkeypatch.setattr(toy_program, "draw", fails)
    with pytest.raises(KeyError, match="a bug"):
        ran("draw", "a", "--out", "b")
    assert sorted(path.name for path in place.iterdir()) == ["a"]
    with pytest.raises(KeyError, match="a bug"):
        ran("draw", "a")
    assert (place / "a" / "figure.txt").read_text(encoding="utf-8") == "[3, 5] softmax"


def test_a_link_in_place_of_a_figure_is_not_followed(place):
    """House rule: nothing outside the run is written."""
    (place / "mine").write_text("mine", encoding="utf-8")
    (place / "a" / "figure.txt").unlink()
    (place / "a" / "figure.txt").symlink_to(place / "mine")
    assert ran("draw", "a") == 0
    assert (place / "mine").read_text(encoding="utf-8") == "mine"
    assert not (place / "a" / "figure.txt").is_symlink()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "draw takes one directory of a run, got 0"),
        (["a", "a"], "draw takes one directory of a run, got 2"),
        (["none"], "none is no run"),
        (["a", "--quiet"], "draw takes directories of runs and --out DIR and --json, got --quiet"),
        (["a", "--out", "a"], "out must be a new or empty directory, got a, which has files"),
        (["other"], "other is a run of 'another', which no program here knows how to draw"),
        (["older"], "the configuration in the manifest has no field 'weight_decay'"),
        (["fewer"], "the record in fewer has no array 'heads 4/zeros', which its figures are"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(capsys, place, words, sentence):
    """House rule: no run, no program, other choices or arrays: status 2, and nothing written."""
    runs = (
        ("other", "another", {"heads": (4,)}, {"x": 1}),
        ("older", "toy", {"heads": (4,)}, {"x": 1}),
        ("fewer", "toy", toy_program.Config(heads=(4,)), {"heads 4": {"ones": [1.0]}}),
    )
    for name, experiment, config, arrays in runs:
        with store.open_run(name, experiment=experiment, config=config) as draft:
            store.save_record(draft, arrays)
    before = sorted(place.rglob("*"))
    assert sentence in refused(capsys, *words)
    assert sorted(place.rglob("*")) == before


def test_a_program_that_draws_while_it_runs(capsys, monkeypatch):
    """House rule: a benchmark has no figures but those of its run, and says so."""
    monkeypatch.delattr(toy_program, "draw")
    assert "toy does not draw from its record: run it again" in refused(capsys, "a")
