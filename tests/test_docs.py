"""What the documentation shows is what happens: doctests, the blocks of every page, the targets.

Doctests are found in the source, not in the imported module: `doctest` itself overlooks functions
that a decorator such as `jax.jit` or the type checker of this suite has wrapped. They run in
jax's default precision, because they show what a user sees.
"""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "meanfield").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "experiments").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def examples(source, name):
    """Every docstring of a source that holds an example, as (name, line, text)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ">>>" in (text := ast.get_docstring(node) or ""):
            title = f"{name}.{node.name}" if hasattr(node, "name") else name
            yield title, node.body[0].lineno, text


def run_examples(source, name, namespace):
    """The failures of all examples of a source, as text; each docstring has its own names."""
    heard = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    for title, line, text in examples(source, name):
        case = doctest.DocTestParser().get_doctest(text, dict(namespace), title, name, line - 1)
        with jax.enable_x64(False):
            runner.run(case, out=heard.append)
    return "".join(heard)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_doctests(path):
    """Closed form: the value that the docstring prints."""
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    failures = run_examples((ROOT / path).read_text(encoding="utf-8"), name, vars(module))
    assert not failures, failures


def test_a_wrong_doctest_is_seen():
    """Closed form: one plus one is not three, also inside a wrapped function."""
    source = 'import jax\n@jax.jit\ndef f(x):\n    """F.\n\n    >>> 1 + 1\n    3\n    """\n'
    assert "Expected:\n    3\nGot:\n    2" in run_examples(source, "wrong", {})
    assert not run_examples(source.replace("3\n", "2\n"), "right", {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_blocks(page, tmp_path):
    """Closed form: the output that a block shows, in a fresh process with default settings."""
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks or page.name != "README.md" or page.parent != ROOT, "README.md shows no example"
    program = "import doctest\nnamespace = {'__name__': '__main__'}\n"
    for number, block in enumerate(blocks):
        place = f"{page.name}[{number}]"
        if ">>>" in block:
            program += (
                f"text, place = {block!r}, {place!r}\n"
                "case = doctest.DocTestParser().get_doctest(text, namespace, place, place, 0)\n"
                "runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)\n"
                "assert not runner.run(case, clear_globs=False).failed\n"
                "namespace = case.globs\n"
            )
        else:
            program += f"exec(compile({block!r}, {place!r}, 'exec'), namespace)\n"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page):
    """Closed form: a make target or a linked file that a page names is there."""
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
