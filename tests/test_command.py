import dataclasses
import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import toy_program

from meanfield import command, flags, store

PROGRAMS = {"toy": "toy_program"}
ROOT = toy_program.__file__.rpartition("/tests/")[0]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words):
    return command.main(PROGRAMS, words, prog="python -m toys", kind="toy")


def refused(capsys, *words):
    """The one sentence on stderr of a command line that is refused."""
    assert ran(*words) == 2
    said = capsys.readouterr()
    assert not said.out
    assert re.fullmatch(r"error: [^\n]+\n", said.err), said.err
    assert not re.search(r"[│╭|]|Traceback|\x1b", said.err)
    return said.err


def test_list(capsys):
    """Closed form: each program with its line, read without importing it."""
    loaded = set(sys.modules)
    for words in ([], ["--help"], ["-h"]):
        assert ran(*words) == 0
        said = capsys.readouterr().out
        assert f"  toy  {toy_program.SUMMARY}\n" in said
        assert "python -m toys draw DIR [--out DIR]\n" in said
    assert set(sys.modules) == loaded


def test_run_directory(capsys, place):
    """Closed form: the record, the manifest and the report of a run, under the name given."""
    assert ran("toy", "--out", "here", "--heads", "3", "5", "--weight-decay", "0", "--remat") == 0
    arrays, manifest = store.load_run("here")
    np.testing.assert_array_equal(arrays["heads 5"]["zeros"], np.zeros(5))
    assert arrays["progress"]
    expected = toy_program.Config(heads=(3, 5), weight_decay=0.0, remat=True)
    assert manifest["config"] == json.loads(json.dumps(dataclasses.asdict(expected)))
    assert manifest["experiment"] == "toy"
    assert manifest["seeds"] == [0, 1, 2]
    text = (place / "here" / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# A toy\n")
    assert "| heads | 3, 5 |" in text
    assert (place / "here" / "figure.txt").exists()
    said = capsys.readouterr().out
    assert "2 widths" in said
    assert "report: here/report.md" in said
    assert [path.name for path in place.iterdir()] == ["here"]


def test_default_place(capsys, place):
    """Closed form: without --out a run goes to runs/NAME-DATE-TIME; --quiet says only where."""
    assert ran("toy", "--preset=tiny", "--quiet") == 0
    (out,) = (place / "runs").iterdir()
    assert re.fullmatch(r"toy-\d{8}-\d{6}", out.name)
    arrays, manifest = store.load_run(out)
    assert capsys.readouterr().out == f"report: runs/{out.name}/report.md\n"
    assert not arrays["progress"]
    assert (manifest["config"]["heads"], manifest["seeds"]) == ([1], [0])


def test_flags_override_the_preset(place):
    """Closed form: whatever their order, flags win over the preset."""
    assert ran("toy", "--seeds", "2", "--preset", "tiny", "--chunk", "7", "--out", "a") == 0
    config = store.load_run("a").manifest["config"]
    assert (config["seeds"], config["heads"], config["chunk"]) == (2, [1], 7)


def test_data_is_handed_on(place):
    """Closed form: the path arrives; its checksum comes back in the manifest."""
    assert ran("toy", "--data", "images.npz", "--out", "a") == 0
    assert store.load_run("a").manifest["data"] == {"images.npz": "0" * 64}


def test_help_shows_the_defaults_of_the_preset(capsys):
    """Closed form: every field is a flag, with its line and the default of the chosen preset."""
    for preset, heads in (("default", "4 8"), ("tiny", "1")):
        with pytest.raises(SystemExit) as stop:
            ran("toy", "--preset", preset, "--help")
        assert not stop.value.code
        said = capsys.readouterr().out
        assert toy_program.SUMMARY in said
        assert "Zeros in each row." in said
        assert f"(default: {heads})" in said
        for flag in ("--weight-decay", "--kernel", "--chunk", "--seeds", "--out", "--data"):
            assert flag in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tyo"], "toy must be one of toy, got 'tyo'; did you mean 'toy'?"),
        (["--preset", "tiny"], "toy must be one of toy, got '--preset'"),
        (
            ["toy", "--preset", "tin"],
            "preset must be one of tiny, default, got 'tin'; did you mean",
        ),
        (["toy", "--preset"], "preset must be one of tiny, default, got ''"),
        (["toy", "--hedas", "4", "8"], "unknown flag --hedas: did you mean --heads?"),
        (["toy", "--weight_decya=3"], "unknown flag --weight_decya: did you mean --weight-decay?"),
        (["toy", "--zzz"], "unknown flag --zzz: see python -m toys toy --help"),
        (["toy", "tiny"], "unexpected word 'tiny'"),
        (["toy", "--remat", "yes"], "unexpected word 'yes'"),
        (["toy", "--seeds", "2.5"], "--seeds must be a whole number, got '2.5': see"),
        (["toy", "--seeds"], "--seeds must be a whole number, got nothing: see"),
        (["toy", "--seeds=x"], "--seeds must be a whole number, got 'x'"),
        (["toy", "--heads", "4", "x"], "--heads must be a whole number, or several, got '4 x'"),
        (["toy", "--weight-decay", "small"], "--weight-decay must be a number, got 'small'"),
        (["toy", "--weight_decay", "small"], "--weight-decay must be a number, got 'small'"),
        (["toy", "--chunk", "x"], "--chunk must be a whole number or None, got 'x'"),
        (["toy", "--kernel", "sofmax"], "gaussian, got 'sofmax'; did you mean 'softmax'?"),
        (["toy", "--weight-decay", "-1"], "error: weight_decay must be >= 0, got -1.0"),
        (
            ["toy", "--heads", "0"],
            "error: heads must be >= 1, got 0: a network without heads is no",
        ),
        (["toy", "--fail", "value"], "error: bandwidth must be > 0, got -1.0"),
        (["toy", "--out", "full"], "out must be a new or empty directory, got full, which has"),
        (["toy", "--out", "full/file"], "got full/file, which is a file"),
        (["toy", "--out", "full/file/run"], "out must be where files can be written"),
        (["toy", "--out", "/proc/run"], "out must be where files can be written"),
        (["toy", "--out", "a" * 300], "out must be where files can be written"),
        (["toy", "--out", "new/" + "a" * 300], "out must be where files can be written"),
        (["toy", "--fail", "value", "--out", "new/deep/run"], "error: bandwidth must be > 0"),
        (["toy", "--cache", "full/file"], "must be a directory where files can be written, got"),
        (["toy", "--distributed"], "unknown flag --distributed"),
    ],
)
def test_bad_input_is_one_sentence(capsys, place, words, sentence):
    """House rule: status 2, one sentence with got, expected and remedy, and nothing written."""
    (place / "full").mkdir()
    (place / "full" / "file").touch()
    before = sorted(place.rglob("*"))
    assert sentence in refused(capsys, *words)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("words", [["--heads", "0"], ["--weight-decay", "small"]])
def test_errors_do_not_depend_on_the_terminal(capsys, monkeypatch, words):
    """Invariance: the sentence is the same on a narrow terminal in colour."""
    wide = refused(capsys, "toy", *words)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert refused(capsys, "toy", *words) == wide


def test_json(capsys, place):
    """Closed form: one line on stdout, with the paths and the numbers of the record."""
    assert ran("toy", "--preset", "tiny", "--out", "a", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("wall_seconds") >= 0
    assert said == {
        "experiment": "toy",
        "directory": "a",
        "report.md": "a/report.md",
        "record.npz": "a/record.npz",
        "manifest.json": "a/manifest.json",
        "summary": "1 widths",
        "scalars": {"progress": True},
    }


def test_interrupt(capsys, place):
    """House rule: Ctrl-C ends with a sentence and status 130, and leaves no run."""
    assert ran("toy", "--fail", "interrupt", "--out", "a") == 130
    assert "interrupted: nothing was written" in capsys.readouterr().err
    assert not list(place.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_full_disk(capsys, place, monkeypatch, code):
    """House rule: a full disk is neither bad input nor a bug: one sentence, status 1."""
    failure = OSError(code, os.strerror(code), "record.npz")
    monkeypatch.setitem(toy_program.FAILURES, "disk", failure)
    assert ran("toy", "--fail", "disk", "--out", "a") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the run could not be saved: ")
    assert os.strerror(code) in said
    assert said.count("\n") == 1
    assert not list(place.iterdir())


def test_bugs_keep_their_traceback(place):
    """House rule: what is no bad input is not dressed up as it; still no half-written run."""
    with pytest.raises(KeyError, match="a bug"):
        ran("toy", "--fail", "bug", "--out", "a")
    assert not list(place.iterdir())


def ended(front):
    """A process that ends with ``front``, a daemon thread of it still at work."""
    program = (
        "import threading, time; from meanfield import command;"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start();"
        f"command.end({front})"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_end_keeps_status_and_output():
    """Closed form: what was said reaches the reader, the status is that of the front."""
    for status in (0, 2, 130):
        done = ended(f"lambda: print('said') or {status}")
        assert (done.returncode, done.stdout, done.stderr) == (status, "said\n", "")


def test_end_shows_bugs():
    """House rule: a bug keeps its traceback and gives status 1, threads or none."""
    done = ended("lambda: 1 // 0")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_developers_see_tracebacks(monkeypatch):
    """House rule: under python -X dev a ValueError is shown from where it comes."""
    monkeypatch.setattr(command, "in_development", lambda: True)
    with pytest.raises(ValueError, match="bandwidth"):
        ran("toy", "--fail", "value")


def test_programs_without_data_have_no_such_flag(capsys, monkeypatch):
    """House rule: a data set that would be ignored is refused."""
    given = toy_program.run
    monkeypatch.setattr(
        toy_program,
        "run",
        lambda config, *, out_dir, progress: given(
            config, data=None, out_dir=out_dir, progress=progress
        ),
    )
    assert "unknown flag --data" in refused(capsys, "toy", "--data", "a.npz")
    assert ran("toy", "--out", "a") == 0


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ([], None),
        (["--distributed"], ""),
        (["--distributed", "a:1,2,0", "--seeds", "2"], "a:1,2,0"),
    ],
)
def test_where_several_processes_are(words, where):
    """Closed form: none, a cluster to be asked, an address; two of these are refused."""
    options = {"prog": "p", "summary": "", "presets": toy_program.PRESETS, "data": False}
    assert flags.parse(words, **options, spread=True).distributed == where
    with pytest.raises(ValueError, match="as one word, got .'a', 'b'."):
        flags.parse(["--distributed", "a", "b"], **options, spread=True)


def test_the_package_needs_no_tyro():
    """Closed form: the front imports without tyro and names the remedy when a run needs it."""
    program = (
        "import sys; sys.modules['tyro'] = None; import meanfield; from meanfield import command;"
        "sys.path.append('tests');"
        "sys.exit(command.main({'toy': 'toy_program'}, ['toy'], prog='p', kind='toy'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: command lines need tyro: pip install 'meanfield[experiments]'\n"
