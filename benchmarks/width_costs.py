"""Costs about a gradient: its activations, a unit of flow time, several seeds, virtual devices.

    activations = scratch of twice the samples - scratch of the samples

One trap: scratch holds copies of the parameters too, which grow with the heads whatever is done.
"""

import math
import os
from typing import Any

from benchmarks import width_networks, width_spread
from benchmarks.attention_problem import Shape


def shape(config: Any, heads: int, tokens: int) -> Shape:
    """The sizes of one network; those that never grow are the run's."""
    return Shape(heads, config.head_dim, config.dim, tokens, config.batch)


def activations(config: Any, rows: list[dict]) -> list[dict]:
    """Scratch that twice the samples add, at every number of heads that is fitted."""
    _, depth, tokens = config.fixed
    found = []
    for heads in (number for number in config.heads if number >= config.asymptotic):
        scratch = {
            row["library"]: row["scratch_bytes"]
            for row in rows
            if (row["scan"], row["heads"]) == ("heads", heads)
        }
        grown = width_networks.activations(shape(config, heads, tokens), depth, scratch)
        found += [{"heads": heads, "library": name, "bytes": it} for name, it in grown.items()]
    return found


def flows(config: Any) -> list[dict]:
    """Gradients and seconds of a gradient flow, for every number of heads asked for."""
    _, depth, tokens = config.fixed
    found = []
    for heads in config.flow_heads:
        solved = width_networks.flowing(shape(config, heads, tokens), depth, config.horizon)
        found.append({"heads": heads, "horizon": config.horizon, **solved._asdict()})
    return found


def seeds(config: Any) -> list[dict]:
    """Seconds of several seeds in one program over those of one seed, both on the same devices."""
    _, depth, tokens = config.fixed
    found = []
    for heads in config.seed_heads:
        said = width_spread.measured(
            shape(config, heads, tokens),
            depth,
            devices=math.gcd(config.batch, os.cpu_count() or 1),
            rounds=max(5, config.rounds),
            seeds=config.seeds,
        )
        one, several = said["one, spread"], said["several, spread"]
        found.append({
            "heads": heads, "seeds": config.seeds, "devices": said["devices"],
            "spread": several["seconds"] / one["seconds"],
            "processor_ratio": several["processor_seconds"] / one["processor_seconds"],
            "alone": said["several, alone"]["seconds"] / said["one, alone"]["seconds"],
            "mixed": several["seconds"] / said["one, alone"]["seconds"],
        })  # fmt: skip
    return found


def devices(config: Any) -> dict[str, Any]:
    """What several virtual devices say, and their costs over those of one."""
    _, depth, tokens = config.fixed
    said = width_spread.measured(
        shape(config, config.device_heads, tokens),
        depth,
        devices=config.devices,
        rounds=config.rounds,
    )
    ratios = {
        key: said["several"][key] / said["one"][key] for key in ("seconds", "processor_seconds")
    }
    return {"heads": config.device_heads, **said, **ratios}
