"""Drawn command lines of every experiment: one sentence, or a configuration that can be run."""

import contextlib
import dataclasses
import importlib
import io
import json

import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import _cli
from meanfield import past, running, store

pytestmark = pytest.mark.stress
VALUES = st.sampled_from(
    [
        *("0", "1", "2", "3", "-1", "64", "0.5", "1e-3", "-0.0", "2.5", "1e400", "9" * 400),
        *("5e-324", "nan", "inf", "-inf", "None", "True", "x", "", " ", "½", "4,8", "[4, 8]"),
        *("1_000", "0x10", "softmax", "gaussian", "ntk", "sgd", "cut", "../..", "$(ls)", "é\n|"),
        *("-", "--", "\x1b[31m"),
    ]
)


@pytest.fixture(scope="module")
def presets():
    """The configurations of every experiment; imported late, as collecting tests should be fast."""
    return {name: importlib.import_module(at).PRESETS for name, at in _cli.EXPERIMENTS.items()}


@st.composite
def command_lines(draw, presets):
    """An experiment, perhaps a preset, and up to two flags with values that may fit."""
    name = draw(st.sampled_from(list(presets)))
    kinds = dataclasses.fields(presets[name]["default"])
    fields = [field.name.replace("_", "-") for field in kinds]
    words = [name]
    if draw(st.booleans()):
        words += ["--preset", draw(st.sampled_from([*presets[name], *presets[name], "papre"]))]
    for _ in range(draw(st.integers(1, 2))):
        flag = draw(st.sampled_from([*fields, *fields, *fields, "data", "quiet", "json", "hedas"]))
        # Half of them are such as many fields take.
        likely = st.lists(st.sampled_from(["1", "2", "8", "64", "0.5", "1e-3"]), min_size=1)
        values = draw(st.lists(VALUES, max_size=4) | likely.map(lambda some: some[:1]))
        if values and draw(st.booleans()):
            words.append(f"--{flag}={values[0]}")
        else:
            words += [f"--{flag}", *values]
    return words


@settings(max_examples=examples(60, 600))
@given(data=st.data())
def test_drawn_command_lines(presets, data):
    """House rule: status 2 and one sentence, or a valid configuration; no run is made."""
    words = data.draw(command_lines(presets))
    taken, said, sorry = [], io.StringIO(), io.StringIO()

    def taking(program, name, choices, origin, **rest):
        taken.append(choices)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "run", taking)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(sorry):
            status = _cli.main(words)
    assert said.getvalue() == ""
    if status:
        sentence = sorry.getvalue()
        assert (status, taken) == (2, [])
        assert sentence.startswith("error: ")
        assert sentence.count("\n") == 1
        assert "Traceback" not in sentence
        return
    (choices,) = taken
    config = choices.config
    assert dataclasses.replace(config) is not None
    # And its manifest is enough to choose it once more.
    manifest = {"config": json.loads(json.dumps(store.plain(config), allow_nan=False))}
    again = past.configuration(manifest, type(config))
    assert store.plain(again) == manifest["config"]
    assert {type(getattr(again, field.name)) for field in dataclasses.fields(config)} == {
        type(getattr(config, field.name)) for field in dataclasses.fields(config)
    }
