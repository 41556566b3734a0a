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
    lines = [
        f"usage: {prog} NAME [--preset P] [--out DIR] [--FIELD VALUE ...]",
        f"       {prog} show DIR",
        f"       {prog} draw DIR [--out DIR]",
        f"       {prog} compare DIR DIR ... [--out DIR]",
        f"       {prog} --from DIR [--out DIR] [--FIELD VALUE ...]",
    ]
    if programs:
        width = max(map(len, programs))
        lines += ["", f"{kind}s:"]
        lines += [f"  {name:{width}}  {_summary(module)}" for name, module in programs.items()]
        lines += ["", f"{prog} NAME --help lists the flags of one of them, with their defaults."]
    return "\n".join(lines)


def _summary(module: str) -> str:
    # Read, not imported: a list should not wait for jax and every library behind it.
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"the program {module} is not there: restore it or take it off the list")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "SUMMARY" for target in targets):
                return ast.literal_eval(node.value)
    raise ValueError(f"the program {module} has no SUMMARY: write one as a literal line of text")
