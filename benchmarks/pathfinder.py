"""Speed of the Pathfinder generator at the published levels, beside one image at a time.

    rate = images / seconds of the processor,   ratio = seconds one by one / seconds together

One trap: both draw the very same images, each from its own random numbers; an image of the hard
level takes many attempts, so a rate is one of many images and not of the luckiest.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distance_timing import Timing, interleaved
from meanfield import checks, plots, store, tasks
from meanfield.command import Outcome
from meanfield.report import table

SUMMARY = "Pathfinder images per second at the published levels, against one image at a time."
LEVELS = {"hard": 14, "intermediate": 9, "easy": 6}
LEAST_RATE = 200
"""Images asked for per second of one core, at 32 x 32."""
WORDS = {True: "met", False: "missed"}
TOGETHER, SINGLE = "together", "one by one"
STYLES = {TOGETHER: ("#D55E00", "o"), SINGLE: ("#0072B2", "s")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Images of the Pathfinder generator, together and one by one."""

    levels: tuple[str, ...] = ("hard", "intermediate", "easy")
    """Published levels: hard, intermediate, easy."""
    images: int = 256
    """Images of a call, the same ones each time."""
    rounds: int = 5
    """Samples of each contender, taken in turns."""
    seed: int = 0
    """Seed of the images."""

    def __post_init__(self) -> None:
        """Refuses what no run could have."""
        if not self.levels:
            raise ValueError("levels must hold at least one level, got none")
        for level in self.levels:
            checks.choice("level", level, tuple(LEVELS))
        checks.count("images", self.images)
        checks.count("rounds", self.rounds, least=2)
        checks.count("seed", self.seed, least=0)


PRESETS = {"tiny": Config(levels=("easy",), images=4, rounds=2), "default": Config()}


def run(config: Config, *, out_dir: Path, progress: bool) -> Outcome:
    """Times the generator at every level, draws and reports."""
    rows = []
    for level in config.levels:
        rows += _timed(level, config)
        if progress:
            print("\n".join(map(_line, rows[-2:])))
    results: dict = {"rows": rows, "numbers": numbers(rows)}
    with store.replacing(out_dir / "results.json") as path:
        path.write_text(json.dumps(store.plain(results), indent=1) + "\n", encoding="utf-8")
    _draw(rows, out_dir / "rates.png")
    kept = ("images", "seconds", "processor_seconds", "brightness")
    return Outcome(
        arrays={name: np.array([row[name] for row in rows]) for name in kept},
        report=_page(results, config),
        summary="\n".join(
            f"{WORDS[n['met']]:6s} {n['level']:12s} {n['rate']:6.0f} images per second of the "
            f"processor (asked ≥ {LEAST_RATE}), {n['ratio']:.2f} times those of one by one"
            for n in results["numbers"]
        ),
        data_checksums={},
        seeds=[config.seed],
    )


def numbers(rows: list[dict]) -> list[dict]:
    """What is asked for and what was measured, for every level.

    Args:
        rows: What was timed.
    """
    found = []
    for level in dict.fromkeys(row["level"] for row in rows):
        by_name = {row["contender"]: row for row in rows if row["level"] == level}
        row = by_name[TOGETHER]
        samples = np.array(row["processor_samples"])
        rate = float(row["images"] / np.median(samples))
        low, high = row["images"] / np.quantile(samples, [0.75, 0.25])
        ratios = np.divide(by_name[SINGLE]["processor_samples"], samples)
        found.append({
            "level": level, "rate": rate, "quartiles": [float(low), float(high)],
            "ratio": float(np.median(ratios)),
            "wall_rate": float(row["images"] / np.median(row["samples"])),
            "met": bool(rate >= LEAST_RATE),
        })  # fmt: skip
    return found


def _timed(level: str, config: Config) -> list[dict]:
    options: dict[str, Any] = {"dashes": LEVELS[level]}

    def together() -> float:
        return float(tasks.pathfinder(config.seed, config.images, **options).images.mean())

    def single() -> float:
        drawn = [
            tasks.pathfinder(config.seed, 1, first=first, **options).images
            for first in range(config.images)
        ]
        return float(np.concatenate(drawn).mean())

    timings = interleaved(
        {TOGETHER: together, SINGLE: single},
        rounds=config.rounds,
        least_seconds=0.0,
        patience=float("inf"),
    )
    return [_row(level, name, config.images, timing) for name, timing in timings.items()]


def _row(level: str, contender: str, images: int, timing: Timing) -> dict:
    return {
        "level": level,
        "dashes": LEVELS[level],
        "contender": contender,
        "images": images,
        "seconds": timing.seconds,
        "processor_seconds": timing.processor_seconds,
        "samples": timing.samples,
        "processor_samples": timing.processor_samples,
        "brightness": timing.value,
    }


def _line(row: dict) -> str:
    return (
        f"{row['level']:12s} {row['contender']:10s} "
        f"{row['images'] / row['processor_seconds']:7.0f} images per second of the processor"
    )


def _draw(rows: list[dict], path: Path) -> None:
    (figure, axes) = plots.panels(columns=1, width=4.6, height=3.0)
    (ax,) = axes
    for contender, (color, mark) in STYLES.items():
        of = [row for row in rows if row["contender"] == contender]
        rates = [row["images"] / np.array(row["processor_samples"]) for row in of]
        low, middle, high = np.array([np.quantile(rate, [0.25, 0.5, 0.75]) for rate in rates]).T
        ax.errorbar(
            [row["dashes"] for row in of], middle, yerr=[middle - low, high - middle],
            fmt=mark + "-", color=color, markersize=5, label=contender,
        )  # fmt: skip
    ax.axhline(LEAST_RATE, color="#7f7f7f", linestyle="--", label="asked")
    ax.set(xlabel="dashes of a path", ylabel="images per processor second", yscale="log")
    ax.set_yticks([100, 200, 500, 1000, 2000], ["100", "200", "500", "1,000", "2,000"])
    ax.tick_params(axis="y", which="minor", left=False, labelleft=False)
    ax.set_xticks(sorted({row["dashes"] for row in rows}))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    plots.save_figure(figure, path)


def _page(results: dict, config: Config) -> str:
    """The text of ``report.md``."""
    asked = table(
        ["level", "images per processor second", "quartiles", "per second of the wall",
         "times one by one", ""],
        [
            [n["level"], f"{n['rate']:.0f}", "{:.0f} to {:.0f}".format(*n["quartiles"]),
             f"{n['wall_rate']:.0f}", f"{n['ratio']:.2f}", WORDS[n["met"]]]
            for n in results["numbers"]
        ],
    )  # fmt: skip
    every = table(
        ["level", "dashes", "contender", "processor seconds", "seconds", "mean brightness"],
        [
            [row["level"], row["dashes"], row["contender"], f"{row['processor_seconds']:.4g}",
             f"{row['seconds']:.4g}", f"{row['brightness']:.6f}"]
            for row in results["rows"]
        ],
    )  # fmt: skip
    return "\n\n".join([
        "# Speed of the Pathfinder generator",
        f"`tasks.pathfinder` draws {config.images} images of 32 x 32 in one call, and the same "
        f"ones one by one. {config.rounds} samples of each are taken in turns, after two calls "
        "that are not counted; ratios are medians over rounds.",
        "## Asked and measured",
        f"Asked: {LEAST_RATE} images per second on one core, at 32 x 32.",
        asked,
        "![Images per processor second against dashes](rates.png)\n\n*Median, bars from the first "
        "to the third quartile.*",
        "## Every contender",
        every,
    ])  # fmt: skip
