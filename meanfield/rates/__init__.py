"""How fast finite networks approach their limit, and the limit itself, each with an interval.

    error(M, L) = a/sqrt(M) + b/L,    observable(M) = c_0 + c_1/M + c_2/M^2

`slopes` fits one power law and averages over seeds, `laws` fits laws of several `terms`, `ranking`
chooses among them, `limit` extrapolates to infinite width; `crossed` averages over seeds and test
samples at once. Only numpy and scipy are needed.
Trap: on log-log axes a law of two terms has a slope between their exponents, equal to neither.
"""

from meanfield.rates.crossed import Crossed, crossed_mean
from meanfield.rates.laws import LawFit, law_fit
from meanfield.rates.limit import WidthLimit, infinite_width
from meanfield.rates.proportions import Share, paired_difference, success_share
from meanfield.rates.ranking import Evidence, Ranking, law_ranking
from meanfield.rates.slopes import Band, Fit, band, log_log_slope
from meanfield.rates.terms import LAWS, Law, Term

__all__ = [
    "LAWS",
    "Band",
    "Crossed",
    "Evidence",
    "Fit",
    "Law",
    "LawFit",
    "Ranking",
    "Share",
    "Term",
    "WidthLimit",
    "band",
    "crossed_mean",
    "infinite_width",
    "law_fit",
    "law_ranking",
    "log_log_slope",
    "paired_difference",
    "success_share",
]
