"""Records to figures; the only room that imports matplotlib.

One trap: a figure drawn from anything but the record cannot be drawn again from it.
"""

from meanfield.plots.canvas import draw_legend as draw_legend
from meanfield.plots.canvas import panels as panels
from meanfield.plots.canvas import save_animation as save_animation
from meanfield.plots.canvas import save_figure as save_figure
from meanfield.plots.canvas import sequential_colors as sequential_colors
from meanfield.plots.densities import draw_densities as draw_densities
from meanfield.plots.drawings import draw_clouds as draw_clouds
from meanfield.plots.drawings import draw_curves as draw_curves
from meanfield.plots.drawings import draw_rate as draw_rate
from meanfield.plots.surfaces import draw_colors as draw_colors
from meanfield.plots.surfaces import draw_contours as draw_contours
from meanfield.plots.surfaces import draw_relief as draw_relief
from meanfield.plots.surfaces import draw_track as draw_track
from meanfield.plots.surfaces import shared_levels as shared_levels
