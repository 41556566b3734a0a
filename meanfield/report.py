"""Reports: tables and provenance in Markdown, from a record and its manifest.

One trap: a vertical bar inside a cell would open a new column; ``table`` escapes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, digits: int = 3) -> str:
    """A Markdown table; columns of numbers are aligned to the right.

    Args:
        header: The name of each column.
        rows: The cells, as many in each row as there are columns.
        digits: Significant digits of floating-point numbers.

    Raises:
        ValueError: If a row has another number of cells than the header.

    >>> print(table(["heads", "loss"], [[4, 0.12345]]).splitlines()[2])
    | 4 | 0.123 |
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"each row must have {len(header)} cells, got {len(row)}: {row}")
    numeric = [
        bool(rows) and all(isinstance(row[i], (int, float)) for row in rows)
        for i in range(len(header))
    ]
    lines = [
        _row(header),
        _row(["---:" if right else "---" for right in numeric]),
        *(_row([_cell(cell, digits) for cell in row]) for row in rows),
    ]
    return "\n".join(lines)


def provenance(manifest: Mapping[str, Any]) -> str:
    """The section of a report that says where its numbers came from.

    Args:
        manifest: The manifest of a run.

    >>> provenance({"experiment": "demo", "wall_seconds": 75.0}).splitlines()[0]
    '## Where these numbers come from'
    """
    return "\n\n".join(
        [
            "## Where these numbers come from",
            table(["fact", "value"], list(facts(manifest).items())),
            "### Configuration",
            table(
                ["choice", "value"],
                [[name, choice(value)] for name, value in choices(manifest).items()],
            ),
        ]
    )


def facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a manifest says of a run, the configuration apart, in words.

    Args:
        manifest: The manifest of a run.

    >>> facts({"experiment": "demo", "wall_seconds": 75.0})["wall time"]
    '1 min 15 s'
    """
    commit, device = manifest.get("commit"), manifest.get("device") or {}
    seeds, data = manifest.get("seeds") or [], manifest.get("data") or {}
    versions = manifest.get("versions") or {}
    return {
        "experiment": manifest.get("experiment", "unknown"),
        "started (UTC)": manifest.get("started", "unknown"),
        **({"resumed (UTC)": ", ".join(manifest["resumed"])} if manifest.get("resumed") else {}),
        "wall time": _duration(manifest["wall_seconds"])
        + (" since then" if manifest.get("resumed") else "")
        if "wall_seconds" in manifest
        else "unknown",
        "seeds": ", ".join(map(str, seeds)) or "none",
        "data": "; ".join(f"{name}, sha256 {sha256}" for name, sha256 in data.items()) or "none",
        "commit": "none: not run from a checkout"
        if commit is None
        else commit["id"] + (" with uncommitted changes" if commit["dirty"] else ""),
        "platform": f"{device.get('platform', 'unknown')}, {device.get('cores', '?')} cores",
        "devices": ", ".join(map(str, device.get("devices", []))) or "unknown",
        "precision": "float64" if device.get("x64") else "float32",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items())
        or "unknown",
    }


def choices(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a manifest, by the names of its choices.

    Args:
        manifest: The manifest of a run.

    >>> choices({"config": {"heads": [4, 8]}})
    {'heads': [4, 8]}
    """
    config = manifest.get("config")
    return config if isinstance(config, dict) else {} if config is None else {"config": config}


def choice(value: Any) -> str:
    """A choice of a configuration, as a reader writes it.

    Args:
        value: What JSON holds of it.

    >>> choice([4, 8])
    '4, 8'
    """
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object, digits: int) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
