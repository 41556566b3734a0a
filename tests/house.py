"""Checks of the house rules, as functions of a file's path and source.

Each yields one sentence per breach, so that `test_house.py` can try it on small bad sources too.
The one trap: paths are relative to the root of the repository and in posix form.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

GROUND = frozenset({"notation", "checks", "tree", "singular", "working_set", "devices"})
# Which rooms of meanfield each room may import. Rooms receive functions instead of importing.
DOORS = {
    "notation": frozenset(),
    "checks": frozenset(),
    "tree": frozenset({"notation", "checks"}),
    "singular": frozenset(),
    "working_set": frozenset(),
    "devices": frozenset({"checks"}),
    "replicas": frozenset({"devices"}),
    "nn": GROUND,
    "ode": GROUND,
    "measure": GROUND,
    "theory": GROUND,
    "landscape": GROUND,
    "progress": frozenset(),
    "flow": GROUND | {"ode", "progress"},
    "rates": frozenset(),
    "tasks": GROUND,
    "plots": GROUND,
    "report": GROUND,
    "provenance": frozenset(),
    "store": GROUND | {"provenance"},
    "past": GROUND | {"plots", "report", "store"},
    "flags": GROUND,
    "compiled": frozenset(),
    "processes": frozenset({"checks"}),
    "listing": frozenset(),
    "halting": frozenset(),
    "kept": frozenset({"halting", "processes", "store"}),
    "running": frozenset({"kept", "past", "processes", "report", "store"}),
    "shortage": frozenset(),
    "command": GROUND
    | {"compiled", "flags", "halting", "listing", "past", "processes", "provenance", "running"}
    | {"shortage"},
}
# The homes of each library: a room or a file of one, or a folder of programs.
EVERYWHERE = frozenset({"jax", "jaxtyping", "numpy"})
PROGRAMS = frozenset({"experiments", "benchmarks"})
HOMES = {
    "diffrax": {"meanfield/ode", "meanfield/flow", "meanfield/theory", *PROGRAMS},
    "equinox": {"meanfield/ode", "meanfield/flow", "meanfield/theory"},
    "optimistix": {"meanfield/ode", "meanfield/flow", "meanfield/theory", "benchmarks"},
    "lineax": {"meanfield/ode", "meanfield/flow", "meanfield/theory", "benchmarks"},
    "optax": {"meanfield/flow", *PROGRAMS},
    "matfree": {"meanfield/landscape", "meanfield/ode"},
    "scipy": {"meanfield/measure", "meanfield/rates", "meanfield/theory", "benchmarks"},
    "ot": {"meanfield/measure", "benchmarks"},
    "ott": {"meanfield/measure", "benchmarks"},
    "flax": {"meanfield/nn/interop", *PROGRAMS},
    "orbax": {"meanfield/store"},
    "tqdm": {"meanfield/progress"},
    "tyro": {"meanfield/command", "meanfield/flags", *PROGRAMS},
    "matplotlib": {"meanfield/plots"},
    "sklearn": PROGRAMS,
    "PIL": {"meanfield/plots", "experiments"},
}
# The ground floor and the rates need less than the other rooms may have.
PLAIN = {
    "notation": {"jax", "jaxtyping"},
    "tree": {"jax", "jaxtyping"},
    "singular": {"jax", "jaxtyping"},
    "working_set": {"jax", "jaxtyping"},
    "devices": {"jax", "jaxtyping"},
    "replicas": {"jax", "jaxtyping"},
    "rates": {"numpy", "scipy", "jaxtyping"},
}

FORBIDDEN_NAMES = frozenset({"utils", "util", "core", "common", "base", "misc", "_src"})
FORBIDDEN_PREFIXES = ("get_", "compute_", "make_")
PICKLES = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})
FILE_LINES, FUNCTION_LINES, CLOSURES = 300, 60, 2
# Written with brackets so that this file does not hold what it looks for.
LEAKS = re.compile(
    r"pypi[.]org|python[h]osted[.]|registry[.]npm[j]s|deb[.]debian|anaconda[.]org|index-ur[l]"
    r"|/wor[k]/|/roo[t]/|/hom[e]/\w|/User[s]/\w|/tm[p]/bash_jobs|/op[t]/\w"
)
UNFINISHED = re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b")
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*\w+|pragma:|ruff:)(.*)")
REASONED = re.compile(r"^(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[\w, -]+\])\s+\W*\w+\W+\w+")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Breaches = Iterator[str]


def place(path: str) -> tuple[str, str]:
    """The package a file belongs to, and its room: `("meanfield", "flow")`."""
    parts = PurePosixPath(path).with_suffix("").parts
    return parts[0], (parts[1] if len(parts) > 1 else "")


def imports(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, at any depth, relative imports resolved."""
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from meanfield import nn` opens the door of nn, though the module is meanfield.
            deeper = module in {"meanfield", *PROGRAMS}
            yield from (
                (node.lineno, f"{module}.{a.name}" if deeper else module) for a in node.names
            )


def doors(path: str, tree: ast.AST) -> Breaches:
    """Imports between rooms that the door table does not hold."""
    package, room = place(path)
    if package == "meanfield" and room not in {"__init__", *DOORS}:
        yield f"{path}: room {room!r} has no line in the door table"
        return
    for line, name in imports(path, tree):
        target, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if target in PROGRAMS and target != package:
            yield f"{path}:{line}: {package} imports the program {name}"
        elif target == package == "meanfield" and other not in {room, *DOORS.get(room, {other})}:
            yield f"{path}:{line}: room {room!r} imports {name}"


def libraries(path: str, tree: ast.AST) -> Breaches:
    """Third-party imports outside their one home."""
    package, room = place(path)
    for line, name in imports(path, tree):
        library = name.partition(".")[0]
        if library in sys.stdlib_module_names or library in {"meanfield", *PROGRAMS}:
            continue
        if package == "meanfield" and room in PLAIN:
            at_home = library in PLAIN[room]
        else:
            homes = HOMES.get(library, set())
            at_home = library in EVERYWHERE or any(
                PurePosixPath(path).with_suffix("").is_relative_to(home) for home in homes
            )
        if not at_home:
            yield f"{path}:{line}: {library} is not at home here"


def functions(tree: ast.AST, depth: int = 0) -> Iterator[tuple[Function, int]]:
    """Every function with the number of functions around it."""
    for node in ast.iter_child_nodes(tree):
        inside = isinstance(node, Function)
        if inside:
            yield node, depth
        yield from functions(node, depth + inside)


def sizes(path: str, tree: ast.AST, source: str) -> Breaches:
    """Files and functions that are too long, closures that are too deep."""
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines, at most {FILE_LINES}"
    for node, depth in functions(tree):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            yield f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"
        if depth > CLOSURES:
            yield f"{path}:{node.lineno}: {node.name} is a closure {depth} deep, at most {CLOSURES}"


def names(path: str, tree: ast.AST) -> Breaches:
    """File names that say nothing, and functions named by an empty verb."""
    for part in PurePosixPath(path).with_suffix("").parts:
        if part in FORBIDDEN_NAMES:
            yield f"{path}: the name {part!r} says nothing"
    for node, _ in functions(tree):
        if node.name.lstrip("_").startswith(FORBIDDEN_PREFIXES):
            yield f"{path}:{node.lineno}: {node.name}: name a function by what it returns"


def constructs(path: str, tree: ast.AST) -> Breaches:
    """`assert`, postponed annotations, pickles."""
    for line, name in imports(path, tree):
        if name.partition(".")[0] in PICKLES:
            yield f"{path}:{line}: {name} can run what it reads"
        if name == "__future__":
            yield f"{path}:{line}: postponed annotations hide shapes from the checker"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f"{path}:{node.lineno}: assert vanishes under -O; raise ValueError"
        allowed = isinstance(node, ast.keyword) and node.arg == "allow_pickle" and node.value
        if allowed and not (isinstance(allowed, ast.Constant) and allowed.value is False):
            yield f"{path}:{allowed.lineno}: allow_pickle can run what it reads"


def takes_arguments(node: Function) -> bool:
    """Whether a function takes any argument."""
    given = node.args
    return bool(given.posonlyargs or given.args or given.kwonlyargs or given.vararg or given.kwarg)


def docstrings(path: str, tree: ast.Module) -> Breaches:
    """Public things without a docstring; public functions without a doctest or `Args`."""
    if not ast.get_docstring(tree):
        yield f"{path}: the module has no docstring"
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        if not text:
            yield f"{path}:{node.lineno}: {node.name} has no docstring"
        elif isinstance(node, Function):
            if ">>>" not in text:
                yield f"{path}:{node.lineno}: {node.name} has no doctest"
            if takes_arguments(node) and "Args:" not in text:
                yield f"{path}:{node.lineno}: {node.name} does not describe its Args"


def oracles(path: str, tree: ast.AST) -> Breaches:
    """Tests whose first line does not say where the expected answer comes from."""
    for node, _ in functions(tree):
        if node.name.startswith("test_") and not ast.get_docstring(node):
            yield f"{path}:{node.lineno}: {node.name} does not name its oracle"


def leaks(path: str, source: str) -> Breaches:
    """Addresses of registries and paths of one machine."""
    for number, line in enumerate(source.splitlines(), 1):
        if found := LEAKS.search(line):
            yield f"{path}:{number}: {found.group()!r} is true of one machine only"


def unfinished(path: str, source: str) -> Breaches:
    """Notes of work left undone."""
    for number, line in enumerate(source.splitlines(), 1):
        if found := UNFINISHED.search(line):
            yield f"{path}:{number}: {found.group()}"


def silenced(path: str, source: str) -> Breaches:
    """Checks silenced without the rule's name and a reason beside it."""
    for number, line in enumerate(source.splitlines(), 1):
        found = SILENCED.search(line)
        if found and not REASONED.match(found.group(2).strip()):
            yield f"{path}:{number}: {found.group().strip()!r} needs its rule and a reason"
