import json
from pathlib import Path

import numpy as np
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meanfield import past, store
from meanfield.past import show

MANIFEST = {
    "experiment": "toy",
    "config": {"heads": [4, 8], "rate": 0.5},
    "commit": {"id": "a" * 40, "dirty": True},
    "seeds": [0, 1],
    "data": {"digits": "0" * 64},
    "device": {"platform": "Linux", "cores": 2, "devices": ["cpu:0"], "x64": True},
    "versions": {"jax": "0.10"},
    "started": "2026-01-01T00:00:00+00:00",
    "wall_seconds": 75.0,
}
RUN = store.Run({"loss": np.ones((2, 3)), "curves": {"steps": np.array(12)}}, MANIFEST)
PRESETS = {"tiny": {"heads": [1], "rate": 0.5}, "default": {"heads": [4, 8], "rate": 0.1}}


def test_every_fact_is_shown(tmp_path):
    """Closed form: provenance, the nearest preset, shapes and numbers, the report's beginning."""
    (tmp_path / "report.md").write_text("# A \x1b[31mtoy\n\n" + "line\n" * 50, encoding="utf-8")
    said = past.shown(RUN, directory=tmp_path, presets=PRESETS)
    for fact in (
        "experiment     toy",
        "commit         " + "a" * 40 + " with uncommitted changes",
        "wall time      1 min 15 s",
        "preset         tiny, but\n  heads        4, 8",
        "  loss          2 × 3  float64",
        "  curves/steps  12",
        "# A [31mtoy",
    ):
        assert fact in said
    assert "\x1b" not in said
    assert said.count("line") == show.LINES - 2


def test_facts_are_json(tmp_path):
    """Closed form: the same in strict JSON; without presets every choice is told."""
    found = json.loads(json.dumps(past.facts(RUN, directory=tmp_path), allow_nan=False))
    assert found["changed"] == MANIFEST["config"]
    assert found["scalars"] == {"curves/steps": 12}
    assert found["arrays"]["loss"] == {"shape": [2, 3], "dtype": "float64"}


def test_a_report_elsewhere_is_not_shown(tmp_path):
    """House rule: a link is not followed out of the run directory."""
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (tmp_path / "report.md").symlink_to(tmp_path / "secret")
    assert "secret" not in past.shown(RUN, directory=tmp_path)


PARTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)


@settings(max_examples=examples(30, 200))
@given(
    config=PARTS | st.lists(PARTS) | st.dictionaries(st.text(max_size=3), PARTS | st.lists(PARTS)),
    seeds=st.lists(PARTS),
    data=st.dictionaries(st.text(max_size=3), PARTS),
    devices=st.lists(PARTS),
)
def test_whatever_a_manifest_holds_can_be_told(config, seeds, data, devices):
    """House rule: a manifest of the right form is shown and compared, whatever is in it."""
    manifest = MANIFEST | {"config": config, "seeds": seeds, "data": data}
    manifest |= {"device": MANIFEST["device"] | {"devices": devices}}
    run = store.Run({"x": np.ones(2)}, store.plain(manifest))
    assert past.shown(run, directory="nowhere", presets=PRESETS)
    # They have no curve in common, so nothing is drawn anywhere.
    text = past.compare({"a": run, "b": RUN}, out_dir=Path("nowhere")).text
    assert text.startswith("# a and b\n")
