"""Command-line flags from a frozen dataclass: every field a typed flag, a preset their defaults.

One trap: tyro reports a bad value as a box of several lines and leaves the process. Here it becomes
a ValueError with one sentence, like any other bad value.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from meanfield import checks

KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "None",
}
"""What a value must be, in words for an error."""

WHERE = "[HOST:PORT,COUNT,INDEX]"
RESUME = "Go on where the run of --out was interrupted, if it was; give the same choices."
KEPT = "Where compiled programs are kept for the next run; by default nowhere."
SPREAD = (
    "One of several processes that share the work: alone under srun, which says which; by hand "
    "with the address of process 0, how many there are, and which this is, from 0 on."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chose: the configuration, and what concerns the run as a whole."""

    config: Any
    preset: str
    out: Path | None
    data: Path | None
    quiet: bool
    json: bool
    cache: Path | None
    distributed: str | None
    resume: bool = False


def parse(
    words: Sequence[str],
    /,
    *,
    presets: Mapping[str, Any],
    prog: str,
    summary: str,
    data: bool,
    spread: bool = False,
    resume: bool = False,
) -> Choices:
    """The choices that the words of a command line make.

    Args:
        words: The words after the name of the program.
        presets: Configurations by name, one of them called "default".
        prog: How the user calls the program; for help and errors.
        summary: What the program does; for help.
        data: Whether it reads a data set.
        spread: Whether several processes may run it together.
        resume: Whether it can go on after an interruption.

    Raises:
        ValueError: If a flag is unknown, or a value has the wrong type or is refused by the
            configuration.
        SystemExit: After printing help, if that is asked for.

    >>> Config = dataclasses.make_dataclass("Config", [("seeds", int, 3)], frozen=True)
    >>> presets = {"default": Config()}
    >>> parse(["--seeds", "5"], presets=presets, prog="demo", summary="", data=False).config
    Config(seeds=5)
    """
    preset = checks.choice("preset", _preset(words), presets)
    command = _command(presets, preset, data=data, spread=spread, resume=resume)
    chosen, unknown = _answer(command, words, prog=prog, summary=summary)
    if unknown:
        raise ValueError(_unknown(unknown[0], command, prog))
    return Choices(
        config=type(presets[preset])(**_values(chosen.config)),
        preset=preset,
        out=chosen.out,
        data=chosen.data if data else None,
        quiet=chosen.quiet,
        json=chosen.json,
        cache=chosen.cache,
        distributed=_together(chosen.distributed) if spread else None,
        resume=resume and chosen.resume,
    )


def _together(words: tuple[str, ...] | None) -> str | None:
    if words is not None and len(words) > 1:
        raise ValueError(f"--distributed takes HOST:PORT,COUNT,INDEX as one word, got {words}")
    return words if words is None else "".join(words)


def _answer(command: type, words: Sequence[str], *, prog: str, summary: str) -> tuple[Any, list]:
    import tyro

    box = io.StringIO()
    with contextlib.ExitStack() as stack:
        if not {"-h", "--help"} & set(words):
            # Both streams: tyro colours its errors if stdout is a terminal.
            stack.enter_context(contextlib.redirect_stderr(box))
            stack.enter_context(contextlib.redirect_stdout(box))
        try:
            return tyro.cli(
                command,
                prog=prog,
                description=summary,
                args=list(words),
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
        except SystemExit as stop:
            if stop.code in (0, None):
                raise
            raise ValueError(_sentence(box.getvalue(), words, command, prog)) from None


def _preset(words: Sequence[str]) -> str:
    # The preset sets the defaults of all other flags, so it is read before them.
    name = "default"
    for word, following in itertools.pairwise([*words, ""]):
        if word == "--preset":
            name = following
        elif word.startswith("--preset="):
            name = word.removeprefix("--preset=")
    return name


def _command(
    presets: Mapping[str, Any], preset: str, *, data: bool, spread: bool, resume: bool
) -> type:
    try:
        from tyro import conf
    except ModuleNotFoundError:
        raise ValueError("command lines need tyro: pip install 'meanfield[experiments]'") from None

    def flag(name: str, kind: Any, metavar: str, text: str, default: Any) -> tuple[str, Any, Any]:
        return name, Annotated[kind, conf.arg(metavar=metavar, help=text)], default

    def switch(name: str, text: str) -> tuple[str, Any, Any]:
        return name, Annotated[bool, conf.FlagCreatePairsOff, conf.arg(help=text)], False

    names = "{" + ",".join(presets) + "}"
    config = _unchecked(presets[preset])
    fields = [
        flag("preset", str, names, "The configuration to start from.", preset),
        flag("out", Path | None, "DIR", "Where to write; by default runs/NAME-DATE-TIME.", None),
        *([flag("data", Path | None, "PATH", "The data set to use.", None)] if data else []),
        switch("quiet", "No progress; print where it is."),
        switch("json", "Print one line of JSON instead of text: paths and numbers."),
        flag("cache", Path | None, "DIR", KEPT, None),
        *([flag("distributed", tuple[str, ...] | None, WHERE, SPREAD, None)] if spread else []),
        *([switch("resume", RESUME)] if resume else []),
        ("config", type(config), dataclasses.field(default_factory=lambda: config)),
    ]
    return dataclasses.make_dataclass("Command", fields, frozen=True, kw_only=True)


def _unchecked(config: Any) -> Any:
    # Without its checks, so that whatever tyro refuses has the wrong type; the rest is refused by
    # the configuration itself, in its own words.
    kind = dataclasses.make_dataclass(
        type(config).__name__,
        [],
        bases=(type(config),),
        namespace={"__post_init__": lambda self: None, "__doc__": type(config).__doc__},
        frozen=True,
        kw_only=True,
    )
    return kind(**_values(config))


def _values(config: Any) -> dict[str, Any]:
    fields = (field.name for field in dataclasses.fields(config) if field.init)
    return {name: getattr(config, name) for name in fields}


def _sentence(box: str, words: Sequence[str], command: type, prog: str) -> str:
    kinds = _kinds(command)
    found = re.search(r"(?<!-)--(\w[\w-]*)", box.replace(f"{prog} --help", ""))
    field = found[1].replace("-", "_") if found else ""
    if found is None or field not in kinds:
        words_only = re.sub(r"[^\w\s'\"().,:;=<>/-]|--+(?!\w)", " ", box)
        return (
            f"{' '.join(words_only.split()) or 'the flags are not understood'}: see {prog} --help"
        )
    given = _given(found[0], words)
    if typing.get_origin(kinds[field]) is Literal:
        checks.choice(found[0], given, [str(option) for option in typing.get_args(kinds[field])])
    got = repr(given) if given else "nothing"
    return f"{found[0]} must be {_kind(kinds[field])}, got {got}: see {prog} --help"


def _kinds(command: type) -> dict[str, Any]:
    kinds = typing.get_type_hints(command)
    return kinds | typing.get_type_hints(kinds.pop("config"))


def _given(flag: str, words: Sequence[str]) -> str:
    given: list[str] = []
    reading = False
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            reading = name.replace("_", "-") == flag
            given = ([value] if equals else []) if reading else given
        elif reading:
            given.append(word)
    return " ".join(given)


def _kind(annotation: Any) -> str:
    parts = typing.get_args(annotation)
    if annotation in KINDS:
        return KINDS[annotation]
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, parts))
    if typing.get_origin(annotation) in (tuple, list):
        return f"{_kind(parts[0])}, or several"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(map(_kind, parts))
    return str(annotation)


def _unknown(word: str, command: type, prog: str) -> str:
    if not word.startswith("--"):
        return f"unexpected word {word!r}: each value follows its flag, a switch takes none"
    known = ["--" + name.replace("_", "-") for name in _kinds(command)]
    near = difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"see {prog} --help"
    return f"unknown flag {word.partition('=')[0]}: {hint}"
