"""The linter, the formatter, the type checker, and the settings they and pip read."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SETTINGS = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)(?: ; .+)?")


CHECKS = {
    "ruff check": ["ruff", "check", "--no-cache"],
    "ruff format": ["ruff", "format", "--check", "--no-cache"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("command", CHECKS.values(), ids=CHECKS)
def test_lint(command):
    """House rule: nothing to mend, as `make lint` sees it."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        # pyright comes whole in its wheel and need not ask the network whether it is the newest.
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def unexplained(settings):
    """Lines of the settings that silence a rule or a warning without a comment."""
    lines = settings.splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        rule = re.match(r'\s*"[A-Z]+\d+",?', line) and "#" not in line
        warning = re.match(r'\s*"(ignore|default):', line) and not above.strip().startswith("#")
        level = re.match(r'report\w+ = (false|"none")', line) and "#" not in line
        if rule or warning or level:
            yield line


def test_settings_explain_what_they_silence():
    """House rule: a reason stands beside each rule that is off."""
    ignored = SETTINGS[
        SETTINGS.index("\nignore = [") : SETTINGS.index("[tool.ruff.lint.pydocstyle]")
    ]
    warnings = SETTINGS[SETTINGS.index("filterwarnings") : SETTINGS.index("[tool.ruff]")]
    types = SETTINGS[SETTINGS.index("[tool.pyright]") :]
    assert not list(unexplained(ignored + warnings + types))


@pytest.mark.parametrize(
    "line", ['    "E501",', '    "ignore:old:DeprecationWarning",', "reportCallIssue = false"]
)
def test_unexplained_is_seen(line):
    """Closed form: one silent line was planted."""
    assert list(unexplained(f"ignore = [\n{line}\n]")) == [line]


def pins():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {canonicalize_name(match[1]): match[2] for match in matches}


def test_lock_holds_what_the_project_needs():
    """Closed form: each requirement has its pin, but for those of a GPU."""
    project = tomllib.loads(SETTINGS)["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(r for e in extras if e != "cuda" for r in extras[e])]
    held = pins()
    for requirement in map(Requirement, wanted):
        if requirement.name != "meanfield":
            version = held.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} has no pin: run make lock"
            assert requirement.specifier.contains(version), f"{requirement}, pinned at {version}"
