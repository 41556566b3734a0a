"""Runs that go on from what they kept, at the size of the suite."""

import importlib
import io
import shutil

import numpy as np
import optax
import pytest
from helpers import examples

from experiments import _cli
from experiments.attention_kernels import training_journal
from meanfield import kept, running
from meanfield.store import records

CHEAP = ("linear_rate", "query_only")
DEAR = tuple(name for name in _cli.EXPERIMENTS if name not in CHEAP)


def record(name, folder, out):
    """The bytes of the record of a tiny run that keeps what it has in a folder."""
    program = importlib.import_module(_cli.EXPERIMENTS[name])
    data = {"data": None} if running.takes(program, "data") else {}
    out.mkdir()
    found = program.run(
        program.PRESETS["tiny"], out_dir=out, progress=False, kept=kept.Kept(folder), **data
    )
    return records.npz_bytes(found.arrays)


@pytest.mark.stress
@pytest.mark.parametrize("name", examples(CHEAP, (*CHEAP, *DEAR)))
def test_members_taken_away_are_computed_again(tmp_path, monkeypatch, name):
    """Invariance: without some of its members and checkpoints, a run has the same record."""
    # Every segment is saved.
    monkeypatch.setattr(kept, "SECONDS", 1e-9)
    rng, folder = np.random.default_rng(0), tmp_path / "kept"
    whole = record(name, folder, tmp_path / "0")
    members, flows = (sorted((folder / kind).glob("*")) for kind in ("members", "flows"))
    assert members
    gone = [member for member in members if rng.random() < 0.5] or members[:1]
    for member in gone:
        shutil.rmtree(member)
    for flow in flows:
        # The state at the end, which leaves that before it; or all of them.
        last = max(flow.glob("*.mfc"))
        shutil.rmtree(flow) if rng.random() < 0.3 else last.unlink()
    assert record(name, folder, tmp_path / "1") == whole
    assert len(list((folder / "members").glob("*"))) == len(members)


class Memory:
    """Checkpoints in memory, always due; stops at the save with this number."""

    seconds = 0.0

    def __init__(self, last=None):
        self.last, self.saves, self.content = last, 0, None

    def load(self):
        return self.content and records.read_npz(io.BytesIO(self.content))

    def save(self, arrays):
        self.content, self.saves = records.npz_bytes(arrays), self.saves + 1

    def stopping(self):
        return self.last is not None and self.saves + 1 >= self.last


RULE = optax.adam(1e-2)


def trained(memory, *, keep, until=6, broken=None):
    """What a training by numpy leaves: its points and rows."""
    theta = {"w": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2)}
    row = {"loss": np.float32([1.0, 2.0]), "right": np.array([[True], [False]])}
    start = (theta, RULE.init(theta))
    journal = training_journal.opened(memory, start, lambda: row, keep=keep)
    for at in range(len(journal.rows) - 1, until):
        theta, state = journal.carry
        factor = np.nan if at == broken else 1.0
        updates, state = RULE.update({k: factor * np.cos(v) for k, v in theta.items()}, state)
        theta = optax.apply_updates(theta, updates)
        journal.add(
            (theta, state), {"loss": np.asarray(theta["w"]).mean(axis=1), "right": row["right"]}
        )
    return journal


@pytest.mark.parametrize("keep", [False, True])
def test_a_journal_goes_on_where_it_was(keep):
    """Invariance: stopped after three segments and resumed, it has the same points and rows."""
    whole, memory = trained(None, keep=keep), Memory(last=3)
    with pytest.raises(KeyboardInterrupt):
        trained(memory, keep=keep)
    assert memory.saves == 3
    memory.last = None
    found = trained(memory, keep=keep)
    assert memory.saves == 6
    for one, other in ((found.points, whole.points), (found.rows, whole.rows)):
        assert len(one) == len(other) > 0
        for mine, its in zip(one, other, strict=True):
            for name in its:
                assert np.asarray(mine[name]).tobytes() == np.asarray(its[name]).tobytes()
                assert mine[name].dtype == its[name].dtype


def test_what_diverged_is_not_saved_over_what_is_finite():
    """House rule: the last good state is there, and leads to the same divergence again."""
    memory = Memory()
    diverged = trained(memory, keep=False, broken=3)
    assert memory.saves == 3
    assert np.isfinite(memory.load()["carry"]["0"]).all()
    again = trained(memory, keep=False, broken=3)
    for one, other in zip(diverged.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one["loss"], other["loss"])


def test_other_data_are_refused(tmp_path):
    """House rule: what was kept of other data is not gone on with."""
    kept.Kept(tmp_path).same("data", {"reviews": "0"})
    with pytest.raises(ValueError, match="is of a run with another data"):
        record("text", tmp_path, tmp_path / "out")
