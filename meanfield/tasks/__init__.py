"""Learning problems whose answers are known: their data, their best risk, their trained limit.

    in-context regression    the Bayes predictor and its risk
    teacher and student      a least risk of exactly 0
    linear network           all of mean-field training at infinite width
    Pathfinder               the label of every image, and what was drawn in it

One trap: a risk is half the mean square everywhere, as in the mean-field limit of Gao et al.
"""

from meanfield.tasks.in_context import (
    Pairs,
    Prompts,
    in_context_bayes_risk,
    in_context_regression,
    in_context_ridge,
    in_context_zero_risk,
    teacher_student,
)
from meanfield.tasks.linear_network import LinearMoments, linear_moments_flow, linear_risk
from meanfield.tasks.pathfinder import Pathfinder, pathfinder

__all__ = [
    "LinearMoments",
    "Pairs",
    "Pathfinder",
    "Prompts",
    "in_context_bayes_risk",
    "in_context_regression",
    "in_context_ridge",
    "in_context_zero_risk",
    "linear_moments_flow",
    "linear_risk",
    "pathfinder",
    "teacher_student",
]
