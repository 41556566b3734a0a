"""The list of experiments, and their command line.

An experiment is a module with SUMMARY, Config, PRESETS and run; ``meanfield.command`` says what
each is. One trap: SUMMARY is read without importing the module, so it is a literal.
"""

from collections.abc import Sequence

from meanfield import command
from meanfield.command import Outcome

__all__ = ["EXPERIMENTS", "Outcome", "main"]

EXPERIMENTS = {
    "depth_limit": "experiments.global_convergence.depth_limit",
    "landscape": "experiments.attention_kernels.landscape",
    "linear_rate": "experiments.attention_kernels.linear_rate",
    "pathfinder": "experiments.attention_kernels.pathfinder",
    "pde": "experiments.global_convergence.pde",
    "query_only": "experiments.attention_kernels.query_only",
    "text": "experiments.attention_kernels.text",
    "vit_depth": "experiments.global_convergence.vit_depth",
    "vit_heads": "experiments.global_convergence.vit_heads",
    "weight_decay": "experiments.global_convergence.weight_decay",
    "width_limit": "experiments.global_convergence.width_limit",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one experiment, or lists them all; gives the exit status."""
    return command.main(
        EXPERIMENTS, arguments, prog="python -m experiments", kind="experiment", spread=True
    )
