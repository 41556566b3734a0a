import dataclasses
import json

import pytest
import toy_program

from meanfield import command, store


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words):
    return command.main({"toy": "toy_program"}, words, prog="python -m toys", kind="toy")


def test_show_and_compare(capsys):
    """Closed form: what differs is said, once in words and once in JSON."""
    assert ran("toy", "--out", "a", "--heads", "3", "--quiet") == 0
    assert ran("toy", "--out", "b", "--preset", "tiny", "--heads", "3") == 0
    capsys.readouterr()
    assert ran("show", "a") == 0
    assert "preset         default, but\n  heads        3\n" in capsys.readouterr().out
    assert ran("show", "b", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["preset"], said["changed"]) == ("tiny", {"heads": [3]})
    assert ran("compare", "a", "b", "--out", "c") == 0
    said = capsys.readouterr().out
    assert "| seeds | 3 | 1 |" in said
    assert said.endswith("report: c/report.md\n")
    assert set(store.load_run("c").manifest["data"]) == {"a", "b"}
    assert ran("show", "c") == 0
    assert ran("compare", "b", "a", "--json") == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(said)["differences"]["seeds"] == ["1", "3"]


def test_a_run_repeated(capsys):
    """Equality: the same choices, the same bytes; flags win over the manifest as over a preset."""
    assert ran("toy", "--out", "a", "--heads", "3", "5", "--chunk", "7") == 0
    assert ran("--from", "a", "--out", "b") == 0
    assert capsys.readouterr().out.endswith("report: b/report.md\nrecord: the same bytes as in a\n")
    one, two = (store.load_run(name).manifest for name in ("a", "b"))
    assert one["config"] == two["config"]
    assert one["record"] == two["record"]
    assert ran("--from", "a", "--heads", "2", "--data", "x.npz", "--out", "c", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["same_record"], said["same_data"]) == (False, False)
    assert said["said"].startswith("other bytes than in a, from other data")
    assert store.load_run("c").manifest["config"] == one["config"] | {"heads": [2]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show"], "show takes one directory of a run, got 0"),
        (["show", "none"], "none is no run: expected a directory with"),
        (["show", "a", "--out", "b"], "show takes directories of runs and --json, got --out"),
        (["compare", "a", "a"], "compare takes two or more directories of runs, got"),
        (["compare", "a", "none"], "none is no run"),
        (["--from"], "--from takes the directory of a run, got nothing"),
        (["--from", "none"], "none is no run"),
        (["--from", "a", "--preset", "tiny"], "--from takes its choices from a run"),
        (["--from", "a", "--hedas", "3"], "unknown flag --hedas: did you mean --heads?"),
        (["--from", "other"], "toy must be one of toy, got 'another'"),
        (["--from", "older"], "the configuration in the manifest has no field 'weight_decay'"),
        (["--from", "newer"], "has an unknown field 'temperature': repeat the run with the"),
        (["--from", "bad"], "error: weight_decay must be >= 0, got -1.0"),
    ],
)
def test_bad_words_about_runs(capsys, place, words, sentence):
    """House rule: what cannot be shown, compared or repeated is one sentence, and leaves none."""
    fields = dataclasses.asdict(toy_program.Config())
    for name, config in (
        ("a", fields),
        ("other", fields),
        ("older", {"heads": (4,)}),
        ("newer", fields | {"temperature": 1.0}),
        ("bad", fields | {"weight_decay": -1.0}),
    ):
        experiment = "another" if name == "other" else "toy"
        with store.open_run(name, experiment=experiment, config=config) as draft:
            store.save_record(draft, {"x": 1})
    before = sorted(place.rglob("*"))
    assert ran(*words) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert sorted(place.rglob("*")) == before
