import dataclasses

import pytest

from meanfield import report, store


def test_table():
    """Closed form: the table written by hand."""
    found = report.table(
        ["heads", "loss", "note"], [[4, 0.123456, "a|b"], [40, float("nan"), "two\nlines"]]
    )
    assert found == (
        "| heads | loss | note |\n"
        "| ---: | ---: | --- |\n"
        "| 4 | 0.123 | a\\|b |\n"
        "| 40 | nan | two lines |"
    )


def test_table_refuses_ragged_rows():
    """House rule: a row that would shift its cells is named."""
    with pytest.raises(ValueError, match="each row must have 2 cells, got 1"):
        report.table(["a", "b"], [[1, 2], [3]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    heads: tuple[int, ...] = (4, 8)
    weight_decay: float = 1e-4


def test_provenance_holds_every_fact(tmp_path):
    """Invariance: what the manifest knows stands in the report."""
    with store.open_run(tmp_path / "run", experiment="vit_heads", config=Config()) as draft:
        manifest = store.save_record(draft, {"x": 1}, seeds=[0, 7], data={"digits": "ab" * 32})
    found = report.provenance(manifest)
    for fact in (
        "| heads | 4, 8 |",
        "| weight_decay | 0.0001 |",
        "| seeds | 0, 7 |",
        "digits, sha256 " + "ab" * 32,
        f"jax {manifest['versions']['jax']}",
        manifest["started"],
        manifest["device"]["devices"][0],
        "float64",
    ):
        assert fact in found


@pytest.mark.parametrize(
    ("commit", "words"),
    [
        (None, "none: not run from a checkout"),
        ({"id": "a" * 40, "dirty": False}, "a" * 40 + " |"),
        ({"id": "a" * 40, "dirty": True}, "a" * 40 + " with uncommitted changes"),
    ],
)
def test_provenance_of_the_commit(commit, words):
    """Closed form: no commit, a clean one, one with changes."""
    assert f"| commit | {words}" in report.provenance({"commit": commit, "wall_seconds": 3725.0})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.96, "1 min 0 s"), (75.0, "1 min 15 s"), (119.7, "2 min 0 s")],
)
def test_wall_time(seconds, words):
    """Closed form: minutes and seconds, never 60 seconds."""
    assert f"| wall time | {words} |" in report.provenance({"wall_seconds": seconds})
