"""Costs about a gradient: its growth, its activations, flow time, several seeds, virtual devices.

    activations = scratch of many samples at once - scratch of few
    floor = seeds * processor seconds of one / (cores * wall seconds of one)

One trap: scratch holds copies of the parameters too, which grow with the heads whatever is done;
activations of few samples fit into those that are not needed any more.
"""

import functools
import math
import os
from typing import Any

from benchmarks import width_flows, width_networks, width_spread
from benchmarks.attention_peers import OURS
from benchmarks.attention_problem import Shape
from benchmarks.attention_rows import finished
from benchmarks.distance_timing import interleaved


def shape(config: Any, heads: int, tokens: int) -> Shape:
    """The sizes of one network; those that never grow are the run's."""
    return Shape(heads, config.head_dim, config.dim, tokens, config.batch)


def activations(config: Any) -> list[dict]:
    """Scratch that more samples add, at every number of heads that is fitted."""
    _, depth, tokens = config.fixed
    return [
        {"heads": heads, "library": name, "bytes": found}
        for heads in config.heads
        if heads >= config.asymptotic
        for name, found in width_networks.activations(shape(config, heads, tokens), depth).items()
    ]


def growth(config: Any) -> list[dict]:
    """Seconds of this library's gradient at every number of heads that is fitted, in turns."""
    _, depth, tokens = config.fixed
    programs = {}
    for heads in (number for number in config.heads if number >= config.asymptotic):
        found: Any = width_networks.contenders(shape(config, heads, tokens), depth, ())[OURS]
        programs[heads] = functools.partial(finished, found)
    timings = interleaved(
        programs, rounds=config.rounds, least_seconds=config.least_seconds, patience=math.inf
    )
    return [
        {"heads": heads, "seconds": each.seconds, "processor_seconds": each.processor_seconds}
        for heads, each in timings.items()
    ]


def flows(config: Any) -> list[dict]:
    """Gradients and seconds of a gradient flow, for every number of heads asked for."""
    _, depth, tokens = config.fixed
    found = []
    for heads in config.flow_heads:
        field = width_flows.field(shape(config, heads, tokens), depth)
        solved = width_flows.solved(
            {"one": field}, config.horizon, rounds=config.rounds, patience=config.patience
        )
        found.append({"heads": heads, "horizon": config.horizon, **solved["one"][0]})
    return found


def seeds(config: Any) -> list[dict]:
    """Seconds of several seeds in one program over those of one seed, both on the same devices."""
    _, depth, tokens = config.fixed
    found = []
    for heads in config.seed_heads:
        said = width_spread.measured(
            shape(config, heads, tokens),
            depth,
            devices=math.gcd(config.batch, _cores()),
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
            # What no batch that saves no work can cost less than: one seed leaves few cores idle.
            "floor": config.seeds * one["processor_seconds"] / (_cores() * one["seconds"]),
        })  # fmt: skip
    return found


def _cores() -> int:
    """Cores of the machine, as every kind of system says them."""
    return os.cpu_count() or 1


def devices(config: Any) -> list[dict]:
    """For every number of heads asked for, what several virtual devices say and cost over one."""
    _, depth, tokens = config.fixed
    found = []
    for heads in config.device_heads:
        said = width_spread.measured(
            shape(config, heads, tokens),
            depth,
            devices=config.devices,
            rounds=config.rounds,
            horizon=config.horizon,
        )
        ratios = {
            f"{what}{key}": said[f"{what}several"][key] / said[f"{what}one"][key]
            for what in ("", "flow ")
            for key in ("seconds", "processor_seconds")
        }
        found.append({"heads": heads, "horizon": config.horizon, **said, **ratios})
    return found
