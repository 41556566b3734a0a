import ast
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.__main__ as benchmarks
from experiments import _cli, _report
from meanfield import flags, running

ROOT = Path(_cli.__file__).parents[1]


def python(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_list():
    """Closed form: every experiment with its line, from the command line itself."""
    done = python("-m", "experiments")
    assert done.returncode == 0, done.stderr
    for name in _cli.EXPERIMENTS:
        assert f"\n  {name} " in done.stdout
    assert "python -m experiments NAME --help" in done.stdout


@pytest.mark.parametrize("program", ["experiments", "benchmarks"])
def test_unknown_names(program):
    """House rule: status 2 and one sentence from the command line itself."""
    done = python("-m", program, "vit_head")
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {program[:-1]} must be one of ")
    assert "Traceback" not in done.stderr


def test_the_nearest_name_is_suggested(capsys):
    """Closed form: one letter off is no riddle."""
    assert _cli.main(["vit_head"]) == 2
    assert capsys.readouterr().err == (
        "error: experiment must be one of "
        f"{', '.join(_cli.EXPERIMENTS)}, got 'vit_head'; did you mean 'vit_heads'?\n"
    )


def test_the_list_of_benchmarks(capsys):
    """Closed form: the same manners, another list."""
    assert benchmarks.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m benchmarks NAME")
    assert all(f"\n  {name} " in said for name in benchmarks.BENCHMARKS)
    # Their figures come from the run alone.
    assert "draw DIR" not in said


@pytest.mark.parametrize("module", [*_cli.EXPERIMENTS.values(), *benchmarks.BENCHMARKS.values()])
def test_every_program_has_its_face(module):
    """House rule: SUMMARY, Config, PRESETS and run, the presets tiny and default among them."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    names = ast.dump(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    for name in ("SUMMARY", "Config", "PRESETS", "run"):
        assert f"'{name}'" in names
    assert {"tiny", "default"} <= set(importlib.import_module(module).PRESETS)


@pytest.mark.parametrize("module", _cli.EXPERIMENTS.values())
def test_every_experiment_draws_from_its_record_and_goes_on(module):
    """House rule: figures from arrays and choices alone, and a run that keeps what it has."""
    program = importlib.import_module(module)
    assert list(inspect.signature(program.draw).parameters) == ["arrays", "config", "out_dir"]
    assert running.takes(program, "kept")


def test_a_refused_run_leaves_no_directory(tmp_path, monkeypatch, capsys):
    """House rule: data that cannot be read end with status 2; new parents of the run go too."""
    done = python(
        "-m", "experiments", *["vit_heads", "--data", "none.npz", "--out", "a/b/c"], cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: data must be an .npz file")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert _cli.main(["vit_heads", "--data", "a" * 300]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {'a' * 300} cannot be read: File name too long")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_examples_of_make_are_accepted():
    """Closed form: the flags that ``make help`` offers for the demo are flags it takes."""
    (offered,) = re.findall(
        r'^demo: .*ARGS="(.*?)"', (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    module = importlib.import_module(_cli.EXPERIMENTS["vit_heads"])
    choices = flags.parse(
        offered.split(), presets=module.PRESETS, prog="demo", summary="", data=True
    )
    assert choices.config.seeds >= 2


def test_report_parts():
    """Closed form: the page written by hand."""
    found = _report.page(
        "Heads",
        [
            _report.table(["heads"], [[4]]),
            _report.figure("loss.png", "Training loss."),
            _report.claim("More heads, less loss.", agrees=True, because="the order is kept."),
        ],
    )
    assert found == (
        "# Heads\n\n| heads |\n| ---: |\n| 4 |\n\n![Training loss.](loss.png)\n\n*Training loss.*"
        "\n\n> More heads, less loss.\n\nThis run **agrees**: the order is kept.\n"
    )


@pytest.mark.parametrize(("agrees", "word"), [(False, "does not agree"), (None, "cannot tell")])
def test_a_claim_can_fail(agrees, word):
    """Closed form: a run may contradict the paper, or leave it open."""
    assert f"This run **{word}**: 3 seeds." in _report.claim("c", agrees=agrees, because="3 seeds.")
