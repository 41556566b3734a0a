"""The parts that every report of an experiment has: figures, tables, and the paper's claim.

One trap: a report that says "agrees" must say how that was decided; ``claim`` asks for it.
"""

from collections.abc import Sequence

from meanfield.report import table

__all__ = ["claim", "figure", "page", "table"]


def figure(name: str, caption: str, /) -> str:
    """A figure of the run directory with a caption."""
    return f"![{caption}]({name})\n\n*{caption}*"


def claim(says: str, /, *, agrees: bool | None, because: str) -> str:
    """What the paper claims and whether this run agrees; None where it cannot tell."""
    verdict = {True: "agrees", False: "does not agree", None: "cannot tell"}[agrees]
    return f"> {says}\n\nThis run **{verdict}**: {because}"


def page(title: str, sections: Sequence[str], /) -> str:
    """A report: the title, and its sections in order."""
    return "\n\n".join([f"# {title}", *(section.strip() for section in sections)]) + "\n"
