"""Time of the gradient of one attention layer, side by side with flax, jax and PyTorch.

    ratio = seconds of another library / seconds of this one, each a median over rounds

All get the same heads and samples; compilation is listed apart. Kernels of this library other than
softmax are held against its own softmax.

On a CPU, ``XLA_FLAGS=--xla_force_host_platform_device_count=2`` gives this library a device per
core to spread samples over, which is a contender of its own.

One trap: which library is fast depends on the number of heads and their size, so shapes with few
heads, many, and many small ones are all tried.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import attention_peers, attention_report, attention_torch
from benchmarks.attention_peers import EINSUM, OURS, SPREAD, TORCH, Contender, Problem, Shape
from benchmarks.distance_timing import Timing, interleaved
from meanfield import checks, nn, store
from meanfield.command import Outcome

SUMMARY = "The gradient of one attention layer against flax, jax.nn and PyTorch: time, agreement."

SHAPES = {
    "many": Shape(heads=40, head_dim=16, dim=64, tokens=64, batch=64),
    "narrow": Shape(heads=256, head_dim=4, dim=16, tokens=16, batch=64),
    "few": Shape(heads=4, head_dim=16, dim=64, tokens=64, batch=64),
    "small": Shape(heads=3, head_dim=4, dim=8, tokens=5, batch=2),
    **{f"long{n}k": Shape(heads=16, head_dim=64, dim=1024, tokens=1024 * n, batch=1)
       for n in (1, 2, 4, 8, 16)},
}  # fmt: skip
MOST_GIB = 4
PRECISIONS = ("bfloat16", "float32", "float64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Gradients of one attention layer, side by side with other libraries."""

    shapes: tuple[str, ...] = ("many", "narrow", "few")
    """Shapes of the layer and its batch: many, narrow, few or small heads, or long1k to long16k."""
    precisions: tuple[str, ...] = ("float32",)
    """Precisions of all shapes."""
    all_precisions: tuple[str, ...] = ("many",)
    """Shapes that are tried in every precision."""
    kernels: tuple[str, ...] = tuple(attention_peers.KERNELS)
    """Kernels; softmax is among them, and the only one of the other libraries."""
    rounds: int = 15
    """Samples of each contender, taken in turns."""
    least_seconds: float = 0.2
    """Seconds that one sample fills, with as many calls as it takes."""
    seed: int = 0
    """Seed of the heads and the samples."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        if not self.shapes:
            raise ValueError("shapes must hold at least one name, got none")
        for name in self.shapes:
            checks.choice("shape", name, SHAPES)
        for name in self.precisions:
            checks.choice("precision", name, PRECISIONS)
        for name in self.all_precisions:
            checks.choice("shape in all precisions", name, self.shapes)
        for name in self.kernels:
            checks.choice("kernel", name, attention_peers.KERNELS)
        if "softmax" not in self.kernels:
            raise ValueError(f"kernels must hold softmax, got {self.kernels}")
        checks.count("rounds", self.rounds, least=2)
        checks.non_negative("least_seconds", self.least_seconds)


PRESETS = {
    "tiny": Config(shapes=("small",), all_precisions=("small",), rounds=2, least_seconds=0.0),
    "default": Config(),
    "gpu": Config(
        shapes=tuple(name for name in SHAPES if name.startswith("long")),
        precisions=("bfloat16",),
        all_precisions=(),
    ),
}


class Row(NamedTuple):
    """One contender on one shape."""

    shape: str
    dtype: str
    kernel: str
    library: str
    value: float
    error: float
    seconds: float
    processor_seconds: float
    quartiles: tuple[float, float]
    samples: int
    compile_seconds: float
    scratch_bytes: float
    left_out: str


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Times every contender on every shape, draws and reports."""
    rows: list[Row] = []
    for name in config.shapes:
        for dtype in PRECISIONS if name in config.all_precisions else config.precisions:
            rows += _compared(name, dtype, config)
            if progress:
                found = [row for row in rows if (row.shape, row.dtype) == (name, dtype)]
                print("\n".join(attention_report.line(row._asdict()) for row in found), flush=True)
    results: dict = {
        "shapes": {name: SHAPES[name]._asdict() for name in config.shapes},
        "rows": [row._asdict() for row in rows],
    }
    results["numbers"] = attention_report.numbers(results["rows"])
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    attention_report.draw(results, out_dir)
    return Outcome(
        arrays={name: np.array([getattr(row, name) for row in rows]) for name in Row._fields},
        report=attention_report.page(results, config),
        summary=attention_report.summary(results),
        data_checksums={},
        seeds=[config.seed],
    )


def _compared(name: str, dtype: str, config: Config) -> list[Row]:
    """The rows of one shape in one precision, all contenders taken in turns."""
    shape = SHAPES[name]
    truths = _truths(shape, config)
    with jax.enable_x64(dtype == "float64"):
        found = _contenders(shape, dtype, config)
        present = {key: it for key, it in found.items() if isinstance(it, Contender)}
        values = {key: attention_peers.squared_norm(it.run()) for key, it in present.items()}
        timings = interleaved(
            {"|".join(key): functools.partial(_finished, it) for key, it in present.items()},
            rounds=config.rounds,
            least_seconds=config.least_seconds,
            patience=float("inf"),
        )
    rows = []
    for key, it in found.items():
        numbers: list[Any] = [np.nan] * 4 + [(np.nan, np.nan), 0, np.nan, np.nan]
        if isinstance(it, Contender):
            error = abs(values[key] / truths[key[0]] - 1)
            numbers = [values[key], error, *_times(timings["|".join(key)]),
                       it.compile_seconds, it.scratch_bytes]  # fmt: skip
        rows.append(Row(*[name, dtype, *key, *numbers, it if isinstance(it, str) else ""]))
    return rows


def _truths(shape: Shape, config: Config) -> dict[str, float]:
    """Squared norms of the gradients by the plain formula in double precision."""
    with jax.enable_x64(True):
        given = attention_peers.problem(config.seed, shape, "float64")
        by = attention_peers.ours if _too_large(shape, 8) else _plain
        plain = {kernel: by(kernel, shape, given) for kernel in config.kernels}
        return {name: attention_peers.squared_norm(it.run()) for name, it in plain.items()}


def _too_large(shape: Shape, itemsize: int) -> str:
    """Why the weights of all heads are not written out at once; nothing where they can be."""
    size = shape.batch * shape.heads * shape.tokens**2 * itemsize / 2**30
    return f"its weights [b m n n] take {size:.3g} GiB" if size > MOST_GIB else ""


def _plain(kernel: str, shape: Shape, given: Problem) -> Contender:
    del shape
    return attention_peers.of_peer(attention_peers.einsum(kernel), _only_layer(given), given)


def _contenders(shape: Shape, dtype: str, config: Config) -> dict[tuple[str, str], Contender | str]:
    """By kernel and library, a contender, or why there is none."""
    given = attention_peers.problem(config.seed, shape, dtype)
    found: dict[tuple[str, str], Contender | str] = {
        (kernel, OURS): attention_peers.ours(kernel, shape, given) for kernel in config.kernels
    }
    found["softmax", SPREAD] = attention_peers.spread(shape, given)
    too_large = _too_large(shape, given.tokens.dtype.itemsize)
    for kernel in config.kernels:
        found[kernel, EINSUM] = too_large or _plain(kernel, shape, given)
    for library, peer in attention_peers.peers(shape, dtype).items():
        if isinstance(peer, str):
            found["softmax", library] = peer
        elif library != EINSUM:
            parameters = peer.parameters(_only_layer(given))
            found["softmax", library] = attention_peers.of_peer(peer.apply, parameters, given)
    found["softmax", TORCH] = attention_torch.torch_layers(given, residual=None)
    return found


def _only_layer(given: Problem) -> nn.Head:
    return nn.Head(*(leaf[0] for leaf in given.heads))


def _finished(contender: Contender) -> float:
    contender.run()
    return 0.0


def _times(timing: Timing) -> list[Any]:
    low, high = np.quantile(timing.samples, [0.25, 0.75])
    quartiles = (float(low), float(high))
    return [timing.seconds, timing.processor_seconds, quartiles, len(timing.samples)]
