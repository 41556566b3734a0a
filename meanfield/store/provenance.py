"""Provenance: the versions, the device, the commit and the choices behind a number.

One trap: the commit is that of the checkout this very file is tracked in. An installed copy that
merely lies below somebody else's repository has none, and says so.
"""

import dataclasses
import enum
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

PACKAGES = (
    *("meanfield", "jax", "jaxlib", "numpy", "scipy", "diffrax", "equinox", "optimistix"),
    *("lineax", "optax", "flax", "matfree", "matplotlib", "scikit-learn", "POT", "ott-jax"),
    "torch",
)


def versions() -> dict[str, str]:
    """The version of Python and of each installed package that numbers can depend on.

    >>> "jax" in versions()
    True
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # Run from a checkout that was never installed, the package still knows its version.
            own = getattr(sys.modules.get(package), "__version__", None)
            if own is not None:
                found[package] = str(own)
    return found


def device() -> dict[str, Any]:
    """The platform and the accelerators that jax sees, and whether it computes in float64.

    >>> device()["x64"] in (True, False)
    True
    """
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "devices": [
            f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()
        ],
        "x64": bool(jax.config.read("jax_enable_x64")),
    }


def commit() -> dict[str, Any] | None:
    """The git commit of this code and whether files differ from it; None outside a checkout.

    >>> commit() is None or len(commit()["id"]) >= 40
    True
    """
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    if tracked is None or head is None or changes is None:
        return None
    return {"id": head, "dirty": bool(changes)}


def plain(value: Any) -> Any:
    """``value`` in the words of JSON, so that a reader needs none of this code.

    Dataclasses and NamedTuples become objects, paths and enumerations text; a number that is not
    finite becomes the text "inf", "-inf" or "nan", which every JSON reader accepts.

    Args:
        value: A configuration.

    Raises:
        ValueError: If a part of it, say a function, has no such form.

    >>> plain({"heads": (4, 8), "bandwidth": np.float64(0.5), "limit": math.inf})
    {'heads': [4, 8], 'bandwidth': 0.5, 'limit': 'inf'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif callable(fields := getattr(value, "_asdict", None)):
        value = fields()
    elif isinstance(value, (np.ndarray, np.generic, jax.Array)):
        value = np.asarray(value).tolist()
    elif isinstance(value, (enum.Enum, Path)):
        value = value.name if isinstance(value, enum.Enum) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError(
            f"a configuration must hold numbers, text and lists of them, got "
            f"{type(value).__name__}; name the choice instead"
        )
    return value


def _git(*arguments: str) -> str | None:
    # Git hooks set GIT_DIR and the like, which would answer for another repository.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
