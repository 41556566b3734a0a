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
import json
from pathlib import Path
from typing import Any

import jax

from benchmarks import (
    attention_numbers,
    attention_peers,
    attention_problem,
    attention_report,
    attention_rows,
    attention_torch,
    width_networks,
)
from benchmarks.attention_peers import EINSUM, OURS, SPREAD, TORCH
from benchmarks.attention_problem import Contender, Problem, Shape, only_layer
from meanfield import checks, store
from meanfield.command import Outcome

SUMMARY = "The gradient of one attention layer against flax, jax.nn and PyTorch: time, agreement."

SHAPES = {
    "many": Shape(heads=40, head_dim=16, dim=64, tokens=64, batch=64),
    "narrow": Shape(heads=256, head_dim=4, dim=16, tokens=16, batch=64),
    "few": Shape(heads=4, head_dim=16, dim=64, tokens=64, batch=64),
    "small": Shape(heads=3, head_dim=4, dim=8, tokens=5, batch=2),
    # Projections cost little here, so that attention itself is what is measured.
    **{f"long{n}k": Shape(heads=16, head_dim=64, dim=64, tokens=1024 * n, batch=16 // n)
       for n in (1, 2, 4, 8, 16)},
    # And here attention costs little beside them.
    "wide": Shape(heads=4096, head_dim=16, dim=1024, tokens=64, batch=64),
}  # fmt: skip
MOST_GIB = 4
PRECISIONS = ("bfloat16", "float32", "float64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Gradients of one attention layer, side by side with other libraries."""

    shapes: tuple[str, ...] = ("many", "narrow", "few")
    """Shapes of the layer and its batch: many, narrow, few, small or wide, or long1k to long16k."""
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
    peak_size: int | None = None
    """Rows of the matrices whose product is taken for the peak; none is taken if None."""
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
        if self.peak_size is not None:
            checks.count("peak_size", self.peak_size)


PRESETS = {
    "tiny": Config(shapes=("small",), all_precisions=("small",), rounds=2, least_seconds=0.0),
    "default": Config(),
    "gpu": Config(
        shapes=(*(name for name in SHAPES if name.startswith("long")), "wide"),
        precisions=("bfloat16",),
        all_precisions=(),
        peak_size=8192,
    ),
}


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Times every contender on every shape, draws and reports."""
    rows: list[dict] = []
    for name in config.shapes:
        truths = _truths(SHAPES[name], config)
        for dtype in PRECISIONS if name in config.all_precisions else config.precisions:
            found = _compared(name, dtype, truths, config)
            rows += found
            if progress:
                print("\n".join(map(attention_report.line, found)), flush=True)
    results: dict = {
        "device": jax.default_backend(),
        "environment": attention_rows.environment(),
        "shapes": {name: SHAPES[name]._asdict() for name in config.shapes},
        "peaks": _peaks(config),
        "rows": rows,
    }
    results["numbers"] = attention_numbers.numbers(results)
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    attention_report.draw(results, out_dir)
    return Outcome(
        arrays=attention_rows.as_arrays(rows),
        report=attention_report.page(results, config),
        summary=attention_report.summary(results),
        data_checksums={},
        seeds=[config.seed],
    )


def _peaks(config: Config) -> dict[str, float]:
    """Operations per second of the fastest matrix product, by precision, where it is asked for."""
    if config.peak_size is None:
        return {}
    return {
        dtype: width_networks.peaks(config.peak_size, dtype).flops_per_second
        for dtype in config.precisions
        if dtype != "float64"
    }


def _compared(name: str, dtype: str, truths: dict[str, Any], config: Config) -> list[dict]:
    """The rows of one shape in one precision, all contenders taken in turns."""
    with jax.enable_x64(dtype == "float64"):
        found = _contenders(SHAPES[name], dtype, config)
        measured = attention_rows.measured(
            found,
            {key: truths[key[0]] for key in found},
            rounds=config.rounds,
            least_seconds=config.least_seconds,
            patience=float("inf"),
        )
    return [
        {"shape": name, "dtype": dtype, "kernel": kernel, "library": library, **numbers}
        for (kernel, library), numbers in measured.items()
    ]


def _truths(shape: Shape, config: Config) -> dict[str, Any]:
    """Outputs and gradients by the plain formula in double precision, by kernel."""
    with jax.enable_x64(True):
        given = attention_problem.problem(config.seed, shape, "float64")
        by = attention_peers.ours if _too_large(shape, 8) else _plain
        return {
            kernel: attention_problem.answer(by(kernel, shape, given)) for kernel in config.kernels
        }


def _too_large(shape: Shape, itemsize: int) -> str:
    """Why the weights of all heads are not written out at once; nothing where they can be."""
    size = shape.batch * shape.heads * shape.tokens**2 * itemsize / 2**30
    return f"its weights [b m n n] take {size:.3g} GiB" if size > MOST_GIB else ""


def _plain(kernel: str, shape: Shape, given: Problem) -> Contender:
    del shape
    return attention_peers.of_peer(attention_peers.by_formula(kernel), only_layer(given), given)


def _contenders(shape: Shape, dtype: str, config: Config) -> dict[tuple[str, str], Contender | str]:
    """By kernel and library, a contender, or why there is none."""
    given = attention_problem.problem(config.seed, shape, dtype)
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
            found["softmax", library] = attention_peers.of_peer(peer, only_layer(given), given)
    found["softmax", TORCH] = attention_torch.torch_layers(given, residual=None)
    return found
