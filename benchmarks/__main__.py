"""``python -m benchmarks``: the list of benchmarks, and their command line.

A benchmark is a module with SUMMARY, Config, PRESETS and run; ``meanfield.command`` says what each
is. One trap: two benchmarks at once on one machine measure each other.
"""

import sys
from collections.abc import Sequence

from meanfield import command

BENCHMARKS: dict[str, str] = {
    "attention": "benchmarks.attention",
    "distances": "benchmarks.distances",
    "integrators": "benchmarks.integrators",
    "landscape": "benchmarks.landscape",
    "pathfinder": "benchmarks.pathfinder",
    "relatives": "benchmarks.relatives",
    "width_scaling": "benchmarks.width_scaling",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one benchmark, or lists them all; gives the exit status."""
    return command.main(BENCHMARKS, arguments, prog="python -m benchmarks", kind="benchmark")


if __name__ == "__main__":
    sys.exit(main())
