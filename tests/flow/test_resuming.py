import json

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from meanfield import flow, store

TIMES = np.linspace(0.0, 6.0, 7)
START = {"x": jnp.array([0.3, -1.7, 0.9]), "none": ()}


def wells(sign, theta):
    return sign * double_well(theta)


def double_well(theta):
    return jnp.sum((theta["x"] ** 2 - 1) ** 2) / 4 + jnp.prod(theta["x"]) / 3


def first(theta):
    return theta["x"]


def rank(theta):
    return jnp.argmax(theta["x"])


def field(sign):
    return flow.gradient_field(Partial(wells, jnp.array(sign)))


def below(bound):
    return flow.risk_below(double_well, bound)


# Signs and bounds are arrays, so that all flows of one solver share their programs.
OBSERVE = {"x": first, "rank": rank}


class Memory:
    """Checkpoints that are kept in memory, and that can break off a flow after a save."""

    def __init__(self, steps, breaks=None, stops=10**9):
        self.seconds, self.steps, self.breaks, self.stops = 1e9, steps, breaks, stops
        self.kept = []

    def stopping(self):
        return len(self.kept) >= self.stops

    def load(self):
        return self.kept[-1] if self.kept else None

    def save(self, arrays):
        self.kept.append(jax.tree.map(np.asarray, arrays))
        if len(self.kept) == self.breaks:
            raise KeyboardInterrupt


def solved(checkpoint=None, *, sign=1.0, bound=-1e9, **options):
    options = {"rtol": 1e-5, "observe": OBSERVE, "stop": below(bound)} | options
    return flow.gradient_flow(field(sign), START, TIMES, checkpoint=checkpoint, **options)


def same(one, other):
    """Nothing, if two records are the same, bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(a, str):
            assert a == b
        else:
            assert (np.asarray(a).dtype, np.asarray(a).tobytes()) == (
                np.asarray(b).dtype,
                np.asarray(b).tobytes(),
            )


@pytest.mark.parametrize("solver", [None, diffrax.Tsit5()], ids=["RKC2", "Tsit5"])
def test_interrupted_anywhere(solver):
    """Invariance: broken off after any save and resumed, a flow ends with the very same record."""
    undisturbed = Memory(steps=5)
    whole = solved(undisturbed, solver=solver)
    if solver is None:
        same(solved(), whole)
    saves = len(undisturbed.kept)
    assert saves >= 5
    for breaks in range(1, saves, 4):
        # Of other lengths than the undisturbed ones: where segments end must not show.
        broken = Memory(steps=3, breaks=breaks)
        with pytest.raises(KeyboardInterrupt):
            solved(broken, solver=solver)
        broken.steps = 17
        same(solved(broken, solver=solver), whole)
    # A flow that is complete is not computed again.
    count = len(undisturbed.kept)
    same(solved(undisturbed, solver=solver), whole)
    assert len(undisturbed.kept) == count


def test_stopped_from_outside():
    """Invariance: told to stop, a flow saves what it has computed, and goes on from there."""
    whole, memory = solved(), Memory(steps=None, stops=1)
    with pytest.raises(KeyboardInterrupt):
        solved(memory)
    assert len(memory.kept) == 2
    steps = [int(np.asarray(kept["counts"])[0]) for kept in memory.kept]
    assert steps[1] > steps[0] == 0
    memory.stops = 10**9
    same(solved(memory), whole)


def test_exhausted_goes_on():
    """Invariance: steps used up end a flow; given more it ends as one that had them at once."""
    memory = Memory(steps=4)
    cut = solved(memory, max_steps=10)
    assert (cut.result, cut.statistics["steps"]) == ("exhausted", 10)
    same(solved(memory), solved())


def test_stopped():
    """Invariance: a stop condition ends both kinds of flow at the same step, and stays met."""
    memory, whole = Memory(steps=3), solved(bound=0.0)
    assert (whole.result, 0 < whole.end_time < 6) == ("stopped", True)
    same(solved(memory, bound=0.0), whole)
    same(solved(memory, bound=0.0), whole)


def test_divergence_keeps_the_last_good_state():
    """Invariance: a flow that blows up gives the same reason, and what is saved is finite."""
    memory, whole = Memory(steps=50), solved(sign=-1.0)
    assert (whole.result, 0 < whole.end_time < 6) == ("diverged", True)
    same(solved(memory, sign=-1.0), whole)
    same(solved(memory, sign=-1.0), whole)
    assert all(np.all(np.isfinite(leaf)) for leaf in memory.kept[-1]["carry"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rtol": 1e-4}, r"tolerances was \[1e-05, 1e-06\], here \[0.0001, 1e-06\]"),
        ({"solver": diffrax.Heun()}, r"solver was RKC2\(.*\), here Heun\(\)"),
        ({"observe": None}, "observables was .*0/rank int.*, here .*"),
        ({"stop": None}, r"stop conditions was \['risk_below'\], here \[\]"),
        ({"theta": {"x": START["x"] + 1e-9, "none": ()}}, "(first step|start and data) was"),
        ({"theta": {"x": START["x"][:2], "none": ()}}, r"parameters was x float64\[3\], here"),
        ({"ts": TIMES[:-1]}, "save times was 7 from 0 to 6 .*, here 6 from 0 to 5"),
        ({"field": field(2.0)}, "first step was 0.0039.*, here 0.0019"),
    ],
)
def test_other_flows_are_refused(change, message):
    """Closed form: what was changed is named with both its values."""
    known = json.dumps(IDENTITY) if IDENTITY else _identity()
    memory = Memory(steps=5)
    memory.kept = [{"identity": np.array(known)}]
    given = {"field": field(1.0), "theta": START, "ts": TIMES, "rtol": 1e-5} | {
        "observe": OBSERVE,
        "stop": below(-1e9),
        **change,
    }
    with pytest.raises(ValueError, match=f"^the checkpoints .* another flow: {message}.* anew$"):
        flow.gradient_flow(
            given.pop("field"), given.pop("theta"), given.pop("ts"), checkpoint=memory, **given
        )


IDENTITY = {}


def _identity():
    memory = Memory(steps=5, breaks=1)
    with pytest.raises(KeyboardInterrupt):
        solved(memory)
    known = str(memory.kept[0]["identity"])
    IDENTITY.update(json.loads(known))
    return known


def test_no_checkpoints():
    """Closed form: a path alone is refused, with the remedy."""
    with pytest.raises(ValueError, match=r"must be what store.Checkpoints\(directory\) returns"):
        solved("runs/a")


def test_bad_file_is_passed_over(tmp_path):
    """Invariance: the newest of the files cut short, the flow ends as if it never was."""
    whole = solved()
    solved(store.Checkpoints(tmp_path, steps=5), max_steps=25)
    older, newest = sorted(tmp_path.glob("checkpoint-*.mfc"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=f"^{newest.name} is cut short.*; {older.name}"):
        same(solved(store.Checkpoints(tmp_path)), whole)


def test_progress_is_drawn(capsys):
    """Closed form: one progress for all segments, with its label, up to the end."""
    solved(Memory(steps=5), progress="width 4")
    drawn = capsys.readouterr().err
    assert drawn.count("100 %") == 1
    assert drawn.splitlines()[-1].startswith("width 4: 100 %, ")
