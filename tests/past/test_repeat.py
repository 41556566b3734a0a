import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from meanfield import past, store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    widths: tuple[int, ...] = (4, 8)
    pair: tuple[int, float] = (1, 0.5)
    limit: float = float("inf")
    steps: int | None = None
    kernel: Literal["softmax", "gaussian"] = "softmax"
    place: Path = Path("a/b")
    rates: tuple[float, ...] = ()
    fast: bool = False


def manifest(**changes):
    return {"config": json.loads(json.dumps(store.plain(Config()))) | changes}


def test_round_trip():
    """Invariance: from a configuration to JSON and back changes no value and no type."""
    assert past.configuration(manifest(), Config) == Config()
    other = Config(steps=3, rates=(1.0, 1e-3), fast=True, kernel="gaussian")
    found = past.configuration({"config": json.loads(json.dumps(store.plain(other)))}, Config)
    assert found == other
    assert isinstance(found.place, Path)
    assert isinstance(past.configuration(manifest(limit=3), Config).limit, float)


@pytest.mark.parametrize(
    "change",
    [
        {"widths": 4},
        {"widths": [4, "8"]},
        {"widths": [4, True]},
        {"widths": [4.0]},
        {"pair": [1]},
        {"limit": "much"},
        {"limit": True},
        {"limit": 10**400},
        {"steps": 0.5},
        {"kernel": "linear"},
        {"place": 3},
        {"rates": None},
        {"fast": 1},
    ],
)
def test_other_types_are_refused(change):
    """House rule: a choice of another type is named, not converted."""
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} in the manifest must be .*, got "):
        past.configuration(manifest(**change), Config)


def test_other_fields_are_refused():
    """House rule: fields too many, too few, or none at all."""
    with pytest.raises(ValueError, match="an unknown field 'heads'"):
        past.configuration(manifest(heads=3), Config)
    fewer = manifest()
    del fewer["config"]["fast"]
    for found in (fewer, {"config": None}, {"config": [1]}):
        with pytest.raises(ValueError, match="the manifest has (no|an unknown) field"):
            past.configuration(found, Config)
