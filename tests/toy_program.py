"""A program for the command line to run: it computes nothing and can fail in every way."""

import dataclasses
import errno
import os
from typing import Literal

import numpy as np

from meanfield.command import Outcome

SUMMARY = "A toy: as many zeros as heads."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the toy does."""

    heads: tuple[int, ...] = (4, 8)
    """Zeros in each row."""
    weight_decay: float = 1e-3
    """Recorded, not used."""
    kernel: Literal["softmax", "gaussian"] = "softmax"
    chunk: int | None = None
    remat: bool = False
    seeds: int = 3
    fail: str = ""

    def __post_init__(self):
        """Refuses what no run could have."""
        for width in self.heads:
            if width < 1:
                raise ValueError(
                    f"heads must be >= 1, got {width}: a network without heads is no network, and "
                    "this sentence is long enough to be broken over several lines of a box"
                )
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")


PRESETS = {"tiny": Config(heads=(1,), seeds=1), "default": Config()}
FAILURES = {
    "value": ValueError("bandwidth must be > 0,\n  got -1.0"),
    "bug": KeyError("a bug"),
    "interrupt": KeyboardInterrupt(),
    "memory": RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2147483648 bytes."),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "record.npz"),
}


def draw(arrays, config, out_dir):
    """A drawing of letters: what is read of the record and of the choices."""
    widths = [len(arrays[f"heads {width}"]["zeros"]) for width in config.heads]
    (out_dir / "figure.txt").write_text(f"{widths} {config.kernel}", encoding="utf-8")


def run(config, *, data, out_dir, progress):
    """An outcome, or the failure asked for after a figure was done."""
    arrays = {f"heads {width}": {"zeros": np.zeros(width)} for width in config.heads}
    draw(arrays, config, out_dir)
    if config.fail:
        raise FAILURES[config.fail]
    return Outcome(
        arrays=arrays | {"progress": progress},
        report="# A toy\n\nNothing was computed.\n",
        summary=f"{len(config.heads)} widths",
        data_checksums={str(data): "0" * 64} if data else {},
        seeds=list(range(config.seeds)),
    )
