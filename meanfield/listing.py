"""The list of programs that a command line starts, a line for each.

One trap: SUMMARY is read from the source, so it must be a literal there.
"""

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path


def listing(programs: Mapping[str, str], /, *, prog: str, kind: str) -> str:
    """What a command line takes, and its programs with a line each.

    Args:
        programs: The module of each program, by its name.
        prog: How the user calls the front.
        kind: What a program is.

    Raises:
        ValueError: If a module is not there or says nothing of itself.

    >>> listing({}, prog="python -m experiments", kind="experiment").splitlines()[1]
    '       python -m experiments show DIR'
    """
    sources = {name: _source(module) for name, module in programs.items()}
    draws = any(_defines(body, "draw") for body in sources.values())
    lines = [
        f"usage: {prog} NAME [--preset P] [--out DIR] [--FIELD VALUE ...]",
        f"       {prog} show DIR",
        *([f"       {prog} draw DIR [--out DIR]"] if draws else []),
        f"       {prog} compare DIR DIR ... [--out DIR]",
        f"       {prog} --from DIR [--out DIR] [--FIELD VALUE ...]",
    ]
    if programs:
        width = max(map(len, programs))
        lines += ["", f"{kind}s:"]
        lines += [
            f"  {name:{width}}  {_summary(programs[name], body)}" for name, body in sources.items()
        ]
        lines += ["", f"{prog} NAME --help lists the flags of one of them, with their defaults."]
    return "\n".join(lines)


def _source(module: str) -> list[ast.stmt]:
    # Read, not imported: a list should not wait for jax and every library behind it.
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"the program {module} is not there: restore it or take it off the list")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body


def _defines(body: list[ast.stmt], name: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in body)


def _summary(module: str, body: list[ast.stmt]) -> str:
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "SUMMARY" for target in targets):
                return ast.literal_eval(node.value)
    raise ValueError(f"the program {module} has no SUMMARY: write one as a literal line of text")
