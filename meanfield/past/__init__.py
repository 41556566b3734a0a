"""Runs of the past: shown, drawn again, compared, and repeated from their manifests.

One trap: a manifest is text from a stranger. It is checked for its form, its choices for their
types, and nothing in it is executed or followed.
"""

from meanfield.past.compare import compare as compare
from meanfield.past.front import answer as answer
from meanfield.past.leaves import flat as flat
from meanfield.past.leaves import scalars as scalars
from meanfield.past.overlay import Curve as Curve
from meanfield.past.overlay import common_curves as common_curves
from meanfield.past.overlay import draw_overlay as draw_overlay
from meanfield.past.redraw import redraw as redraw
from meanfield.past.repeat import Origin as Origin
from meanfield.past.repeat import configuration as configuration
from meanfield.past.repeat import origin as origin
from meanfield.past.show import facts as facts
from meanfield.past.show import shown as shown
