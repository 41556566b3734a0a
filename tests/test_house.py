"""The house rules hold everywhere, and each check of them can fail."""

import ast
import subprocess
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parents[1]
CODE = ("meanfield", "experiments", "benchmarks")
AREAS = (*CODE, "tests")


def python_files(*areas):
    found = sorted(path for area in areas for path in (ROOT / area).rglob("*.py"))
    return [path.relative_to(ROOT).as_posix() for path in found]


def parsed(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    return ast.parse(source, path), source


def text_files():
    """What git tracks or would track, as text; everything outside hidden folders without git."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listing = [
            p.relative_to(ROOT).as_posix() for area in AREAS for p in (ROOT / area).rglob("*")
        ]
    for path in filter(None, listing):
        if (ROOT / path).is_file():
            content = (ROOT / path).read_bytes()
            if b"\0" not in content:
                yield path, content.decode("utf-8")


def report(breaches):
    breaches = list(breaches)
    assert not breaches, "\n" + "\n".join(breaches)


@pytest.mark.parametrize("check", [house.doors, house.libraries, house.names, house.constructs])
def test_code_obeys(check):
    """House rule: the rule holds of every file, hence of the whole."""
    files = python_files(*CODE)
    assert files
    report(breach for path in files for breach in check(path, parsed(path)[0]))


def test_sizes():
    """House rule: no file over 300 lines, function over 60, closure over 2 deep, tests included."""
    report(breach for path in python_files(*AREAS) for breach in house.sizes(path, *parsed(path)))


def test_docstrings():
    """House rule: every public name of the library is documented, every function shown at work."""
    report(b for path in python_files("meanfield") for b in house.docstrings(path, parsed(path)[0]))


def test_tests_name_their_oracles():
    """House rule: the first line of a test says where the expected answer comes from."""
    report(b for path in python_files("tests") for b in house.oracles(path, parsed(path)[0]))


@pytest.mark.parametrize("check", [house.leaks, house.unfinished])
def test_every_tracked_text(check):
    """House rule: no tracked text names a registry, a path of one machine, or undone work."""
    report(breach for path, source in text_files() for breach in check(path, source))


def test_silenced_checks_have_reasons():
    """House rule: whoever silences a check says which and why."""
    report(b for path in python_files(*AREAS) for b in house.silenced(path, parsed(path)[1]))


def test_every_folder_of_code_is_a_package():
    """House rule: a folder without `__init__.py` would be missing from the import system's view."""
    folders = {(ROOT / path).parent for path in python_files(*CODE)}
    report(folder.name for folder in folders if not (folder / "__init__.py").exists())


BAD = [
    (house.doors, "meanfield/nn/x.py", "from meanfield.flow import risk"),
    (house.doors, "meanfield/nn/x.py", "from meanfield import flow"),
    (house.doors, "meanfield/nn/x.py", "from ..flow import risk"),
    (house.doors, "meanfield/nn/x.py", "import meanfield"),
    (house.doors, "meanfield/nn/x.py", "def f():\n    import meanfield.measure.empirical"),
    (house.doors, "meanfield/ode/x.py", "import meanfield.flow"),
    (house.doors, "meanfield/tree.py", "from meanfield.nn import Head"),
    (house.doors, "meanfield/nn/x.py", "import experiments"),
    (house.doors, "meanfield/cellar.py", ""),
    (house.doors, "experiments/x.py", "from benchmarks import timing"),
    (house.doors, "benchmarks/x.py", "import experiments.vit"),
    (house.libraries, "meanfield/nn/x.py", "from matplotlib import pyplot"),
    (house.libraries, "experiments/x.py", "import matplotlib.pyplot as plt"),
    (house.libraries, "meanfield/nn/x.py", "import flax"),
    (house.libraries, "meanfield/flow/x.py", "import ot"),
    (house.libraries, "meanfield/rates/laws.py", "import jax"),
    (house.libraries, "meanfield/tree.py", "import numpy"),
    (house.libraries, "meanfield/nn/x.py", "import torch"),
    (house.names, "meanfield/nn/utils.py", ""),
    (house.names, "meanfield/_src/x.py", ""),
    (house.names, "meanfield/nn/x.py", "class A:\n    def _get_x(self): ..."),
    (house.names, "meanfield/nn/x.py", "def compute_x(): ..."),
    (house.constructs, "meanfield/x.py", "from __future__ import annotations"),
    (house.constructs, "meanfield/x.py", "def f(x):\n    assert x"),
    (house.constructs, "meanfield/x.py", "import pickle"),
    (house.constructs, "meanfield/x.py", "from joblib import dump"),
    (house.constructs, "meanfield/x.py", "np.load(f, allow_pickle=True)"),
    (house.oracles, "tests/test_x.py", "def test_x(): ..."),
    (house.docstrings, "meanfield/x.py", ""),
    (house.docstrings, "meanfield/x.py", '"""M."""\ndef f(): ...'),
    (house.docstrings, "meanfield/x.py", '"""M."""\nclass A: ...'),
    (house.docstrings, "meanfield/x.py", '"""M."""\ndef f():\n    """Return."""'),
    (
        house.docstrings,
        "meanfield/x.py",
        '"""M."""\ndef f(x):\n    """Return.\n\n    >>> 1\n    1\n    """',
    ),
]


@pytest.mark.parametrize(("check", "path", "source"), BAD)
def test_check_sees_one_breach(check, path, source):
    """Closed form: one breach was planted."""
    assert len(list(check(path, ast.parse(source)))) == 1


GOOD = [
    (house.doors, "meanfield/flow/x.py", "from meanfield.ode import RKC2"),
    (house.doors, "meanfield/nn/x.py", "from .block import Block\nfrom meanfield import tree"),
    (house.doors, "meanfield/__init__.py", "from meanfield import nn, flow"),
    (house.doors, "experiments/x.py", "import meanfield\nfrom experiments import _cli"),
    (house.libraries, "meanfield/plots.py", "import math\nfrom matplotlib import pyplot"),
    (house.libraries, "meanfield/rates/laws.py", "import numpy as np\nfrom scipy import stats"),
    (house.names, "meanfield/nn/based.py", "def forget_x(): ..."),
    (house.constructs, "meanfield/x.py", "np.load(f, allow_pickle=False)"),
    (house.oracles, "tests/test_x.py", 'def test_x():\n    """Closed form."""'),
    (house.docstrings, "meanfield/x.py", '"""M."""\ndef _f(x): ...\nx = 1'),
]


@pytest.mark.parametrize(("check", "path", "source"), GOOD)
def test_check_passes_what_is_allowed(check, path, source):
    """Closed form: no breach was planted."""
    assert not list(check(path, ast.parse(source)))


def nested(depth):
    return "".join(f"{'    ' * i}def f{i}():\n" for i in range(depth)) + "    " * depth + "pass\n"


@pytest.mark.parametrize(
    ("source", "breaches"),
    [
        ("x = 1\n" * 300, 0),
        ("x = 1\n" * 301, 1),
        ("def f():\n" + "    x = 1\n" * 59, 0),
        ("class A:\n  def f():\n" + "    x = 1\n" * 60, 1),
        (nested(3), 0),
        (nested(4), 1),
    ],
)
def test_sizes_at_their_bounds(source, breaches):
    """Closed form: the largest allowed size passes, one more does not."""
    assert len(list(house.sizes("meanfield/x.py", ast.parse(source), source))) == breaches


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (house.leaks, "https://" + "pypi" + ".org/simple"),
        (house.leaks, "see /" + "root/notes"),
        (house.leaks, "cd /" + "work/main"),
        (house.leaks, "/" + "home/anna/data"),
        (house.unfinished, "# TO" + "DO: later"),
        (house.unfinished, "FIX" + "ME"),
        (house.silenced, "import os  # no" + "qa"),
        (house.silenced, "import os  # no" + "qa: F401"),
        (house.silenced, "x = f()  # type: " + "ignore"),
        (house.silenced, "x = f()  # pyright: " + "ignore[reportCallIssue]"),
        (house.silenced, "# pyright: " + "basic"),
        (house.silenced, "x = f()  # prag" + "ma: no cover"),
    ],
)
def test_text_check_sees_one_breach(check, line):
    """Closed form: one breach was planted in the second line."""
    (breach,) = check("meanfield/x.py", f"good = 1\n{line}\n")
    assert breach.startswith("meanfield/x.py:2:")


@pytest.mark.parametrize(
    "line",
    [
        "import os  # no" + "qa: F401 - re-exported for users",
        "x = f()  # pyright: " + "ignore[reportCallIssue] diffrax types it as Any",
    ],
)
def test_reasons_are_seen(line):
    """Closed form: rule and reason stand beside the silenced check."""
    assert not list(house.silenced("meanfield/x.py", line))
