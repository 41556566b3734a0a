"""The terrain of a risk: directions, slices and barriers, of any risk on any tree.

    directions  random (filter-normalised), principal ones of a trajectory, between two points
    slices      the risk along a line or over a plane, and a trajectory's shadow there
    barriers    what the risk climbs between two points

Trap: a risk is compiled once for each function *object*; a lambda written anew compiles anew.
"""

from meanfield.landscape.barriers import Barrier, barrier
from meanfield.landscape.directions import (
    Principal,
    difference,
    orthonormal_pair,
    principal_directions,
    random_direction,
)
from meanfield.landscape.slices import Projection, line, plane, project

__all__ = [
    "Barrier",
    "Principal",
    "Projection",
    "barrier",
    "difference",
    "line",
    "orthonormal_pair",
    "plane",
    "principal_directions",
    "project",
    "random_direction",
]
