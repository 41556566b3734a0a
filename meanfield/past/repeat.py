"""Runs repeated: the run to repeat, and its configuration read back from its manifest.

    JSON  ->  Config:   lists become tuples, "inf" and "nan" numbers, text paths

One trap: a field that the program has gained since has a default that the run never saw, so a
manifest without it is refused like one with a field too many.
"""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from meanfield import report, store


class Origin(NamedTuple):
    """The run to repeat."""

    directory: str
    run: store.Run

    def presets(self, presets: Mapping[str, Any]) -> dict[str, Any]:
        """Its configuration as the only one to start from, of the class of the given ones."""
        return {"default": configuration(self.run.manifest, type(presets["default"]))}

    def verdict(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the data and the record of the new run are what they were, and a sentence."""
        before = self.run.manifest
        same_data = before["data"] == manifest["data"]
        same = before["record"]["sha256"] == manifest["record"]["sha256"]
        said = f"the same bytes as in {self.directory}"
        if not same:
            data = "" if same_data else ", from other data"
            said = f"other bytes than in {self.directory}{data}; the word compare says where"
        return {"same_record": same, "same_data": same_data, "said": said}


def origin(words: Sequence[str], /) -> Origin:
    """The run that ``--from DIR`` names.

    Args:
        words: A command line that starts so.

    Raises:
        ValueError: If it is no run, or a preset is asked for too.

    >>> origin(["--from"])
    Traceback (most recent call last):
    ValueError: --from takes the directory of a run, got nothing
    """
    if len(words) < 2:
        raise ValueError("--from takes the directory of a run, got nothing")
    if any(word.partition("=")[0] == "--preset" for word in words):
        raise ValueError("--from takes its choices from a run, so there is no --preset: drop one")
    return Origin(words[1], store.load_run(words[1]))


def configuration(manifest: Mapping[str, Any], kind: type, /) -> Any:
    """The configuration that a manifest holds, as the dataclass ``kind``.

    Args:
        manifest: The manifest of a run.
        kind: The class of the configuration: a dataclass.

    Raises:
        ValueError: If fields are unknown or missing, of another type, or refused by the class.

    >>> Config = dataclasses.make_dataclass("Config", [("heads", tuple[int, ...])], frozen=True)
    >>> configuration({"config": {"heads": [4, 8]}}, Config)
    Config(heads=(4, 8))
    """
    choices, kinds = report.choices(manifest), typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind) if field.init]
    for said, names in (
        ("an unknown field", [name for name in choices if name not in fields]),
        ("no field", [name for name in fields if name not in choices]),
    ):
        if names:
            raise ValueError(
                f"the configuration in the manifest has {said} {names[0]!r}: "
                "repeat the run with the version that wrote it"
            )
    return kind(**{name: _value(name, choices[name], kinds[name]) for name in fields})


def _value(name: str, value: Any, kind: Any) -> Any:
    try:
        return _as(value, kind)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name} in the manifest must be {getattr(kind, '__name__', kind)}, got {value!r}"
        ) from None


def _as(value: Any, kind: Any) -> Any:
    """``value`` of JSON as ``kind``, or a TypeError, ValueError or OverflowError."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _as_any(value, parts)
    if origin in (tuple, list) and isinstance(value, list):
        each = parts[:1] * len(value) if parts[1:] in ((), (...,)) else parts
        return origin(_as(one, part) for one, part in zip(value, each, strict=True))
    number = type(value) in (int, float) or value in ("inf", "-inf", "nan")
    if (kind is float and number) or (kind is Path and isinstance(value, str)):
        return kind(value)
    same = kind in (bool, int, str, type(None)) and type(value) is kind
    if not same and not (origin is Literal and value in parts):
        raise TypeError(f"no {kind}")
    return value


def _as_any(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return _as(value, kind)
    raise TypeError(f"none of {kinds}")
