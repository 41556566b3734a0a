"""Time and memory of a gradient against heads, depth and tokens, side by side with other libraries.

    time ~ heads^a,    scratch memory ~ heads^b        by least squares on logarithmic axes

Matrix-product peak and memory bandwidth are measured in the same run; so are the cost of a unit of
flow time, of seeds batched in one program, and of virtual devices.

One trap: memory is what the compiled program says it allocates; PyTorch says nothing of the kind.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks import attention_rows, width_costs, width_networks, width_numbers, width_report
from benchmarks.attention_peers import EINSUM, LINEN, OURS, SPREAD
from benchmarks.attention_problem import Shape, answer, products
from benchmarks.attention_rows import COLORS
from meanfield import checks, store
from meanfield.command import Outcome

OTHERS = tuple(name for name in COLORS if name not in (OURS, SPREAD))
SUMMARY = "Time and memory of a gradient against heads, depth and tokens, beside other libraries."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Gradients of a deep attention network while one of its sizes grows."""

    scans: tuple[str, ...] = ("heads", "depth", "tokens")
    """What grows, among heads, depth and tokens; heads always do."""
    libraries: tuple[str, ...] = tuple(name for name in OTHERS if name != EINSUM)
    """Other libraries; flax.linen is among them."""
    heads: tuple[int, ...] = (4, 16, 64, 256, 512, 1024, 2048, 4096)
    """Heads of a layer, in growing order."""
    all_up_to: int = 512
    """Heads beyond which flax.linen alone is held against this library: wide networks are slow."""
    depths: tuple[int, ...] = (1, 2, 4, 8)
    """Layers, in growing order."""
    tokens: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Tokens of a sample, in growing order."""
    fixed: tuple[int, int, int] = (64, 2, 64)
    """Heads, layers and tokens where another of them grows."""
    asymptotic: int = 256
    """Heads from which on exponents are fitted."""
    head_dim: int = 16
    """Dimension of a head."""
    dim: int = 64
    """Dimension of a token."""
    batch: int = 8
    """Samples."""
    rounds: int = 5
    """Samples of each contender, taken in turns."""
    least_seconds: float = 0.05
    """Seconds that one sample fills, with as many calls as it takes."""
    patience: float = 2.5
    """Seconds for all samples of one contender; a slow one gets fewer, at least two."""
    peak_size: int = 2048
    """Rows of the matrices whose product is taken for the peak."""
    flow_heads: tuple[int, ...] = (4, 64, 256, 1024, 4096)
    """Heads for which a gradient flow is solved; none of them for none."""
    horizon: float = 30.0
    """Time to which it is solved."""
    seeds: int = 3
    """Seeds batched in one program."""
    seed_heads: tuple[int, ...] = (4, 64, 256)
    """Heads for which they are."""
    devices: int = 8
    """Virtual devices: two along the samples, the others along the heads."""
    device_heads: tuple[int, ...] = (64, 256)
    """Heads that are spread over them."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        for name in self.scans:
            checks.choice("scan", name, width_numbers.SCANS)
        if "heads" not in self.scans:
            raise ValueError(f"scans must hold heads, got {self.scans}")
        for name in self.libraries:
            checks.choice("library", name, OTHERS)
        if LINEN not in self.libraries:
            raise ValueError(f"libraries must hold {LINEN}, got {self.libraries}")
        for what in ("heads", "depths", "tokens"):
            numbers = getattr(self, what)
            for number in numbers:
                checks.count(what, number)
            if list(numbers) != sorted(set(numbers)) or len(numbers) < 3:
                raise ValueError(f"{what} must be at least three growing numbers, got {numbers}")
        for what in ("head_dim", "dim", "batch", "peak_size", "asymptotic"):
            checks.count(what, getattr(self, what))
        if sum(heads >= self.asymptotic for heads in self.heads) < 3:
            raise ValueError(
                f"asymptotic must leave at least three heads to fit, got {self.asymptotic} beside "
                f"heads {self.heads}"
            )
        checks.count("all_up_to", self.all_up_to)
        checks.count("rounds", self.rounds, least=2)
        checks.count("seeds", self.seeds, least=2)
        checks.positive("horizon", self.horizon)
        half = checks.count("devices", self.devices, least=2) // 2
        uneven = any(heads % half for heads in self.device_heads)
        if self.devices % 2 or uneven or self.batch % 2:
            raise ValueError(
                f"devices must be even and half of them divide the heads, two the batch, got "
                f"{self.devices} for {self.device_heads} heads and batch {self.batch}"
            )


PRESETS = {
    "tiny": Config(
        scans=("heads",), libraries=(LINEN,), heads=(1, 2, 4), fixed=(2, 1, 3), asymptotic=1,
        head_dim=2, dim=4, batch=2, rounds=2, least_seconds=0.0, patience=0.0, peak_size=32,
        flow_heads=(2,), horizon=5.0, seeds=2, seed_heads=(2,), devices=2, device_heads=(2,),
    ),
    "default": Config(),
}  # fmt: skip


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Scans heads, depth and tokens, then flows, seeds and devices; draws and reports."""
    before = width_networks.peaks(config.peak_size)
    rows: list[dict] = []
    for scan, heads, depth, tokens in _networks(config):
        sizes = {"heads": heads, "depth": depth, "tokens": tokens}
        before_it = [row for row in rows if sizes.items() <= row.items()]
        # One network is in every scan: what was measured of it once serves all of them.
        found = [row | {"scan": scan} for row in before_it] or _compared(
            scan, width_costs.shape(config, heads, tokens), depth, config
        )
        rows += found
        if progress and not before_it:
            print("\n".join(map(width_report.line, found)), flush=True)
    after = width_networks.peaks(config.peak_size)
    results: dict[str, Any] = {
        # The better of before and after: what the machine can do.
        "peaks": [max(pair) for pair in zip(before, after, strict=True)],
        "environment": attention_rows.environment(),
        "rows": rows,
        "growth": width_costs.growth(config),
        "activations": width_costs.activations(config),
        "flows": width_costs.flows(config),
        "seeds": width_costs.seeds(config),
        "devices": width_costs.devices(config),
    }
    results["fits"] = width_numbers.fits(
        results["rows"], results["activations"], results["growth"], asymptotic=config.asymptotic
    )
    results["fits"] += width_numbers.flow_fit(results["flows"])
    results["numbers"] = width_numbers.numbers(results)
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    width_report.draw(results, out_dir)
    return Outcome(
        arrays=attention_rows.as_arrays(rows),
        report=width_report.page(results, config),
        summary=width_report.summary(results),
        data_checksums={},
        seeds=[width_networks.SEED],
    )


def _networks(config: Config) -> list[tuple[str, int, int, int]]:
    heads, depth, tokens = config.fixed
    scans = {
        "heads": [(number, depth, tokens) for number in config.heads],
        "depth": [(heads, number, tokens) for number in config.depths],
        "tokens": [(heads, depth, number) for number in config.tokens],
    }
    return [(scan, *sizes) for scan in config.scans for sizes in scans[scan]]


def _compared(scan: str, shape: Shape, depth: int, config: Config) -> list[dict]:
    """The rows of one network, all contenders taken in turns."""
    libraries = config.libraries if shape.heads <= config.all_up_to else (LINEN,)
    found = width_networks.contenders(shape, depth, libraries)
    linen: Any = found[LINEN]
    measured = attention_rows.measured(
        found,
        dict.fromkeys(found, answer(linen)),
        rounds=config.rounds,
        least_seconds=config.least_seconds,
        patience=config.patience,
    )
    sizes = {"heads": shape.heads, "depth": depth, "tokens": shape.tokens}
    flops = products(shape, depth)
    return [
        {"scan": scan, **sizes, "library": name, **numbers, "flops": flops}
        for name, numbers in measured.items()
    ]
