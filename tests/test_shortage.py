import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_program

from meanfield import command, shortage


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(size):
    return bytearray(8 * size)


def ran(*words):
    return command.main({"toy": "toy_program"}, words, prog="python -m toys", kind="toy")


@pytest.mark.parametrize(
    ("failure", "wanted"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2147483648 bytes."), ", 2 GiB"),
        (RuntimeError("INTERNAL: std::bad_alloc"), ""),
        (
            MemoryError("Unable to allocate 149. GiB for an array with shape (20000000000,)"),
            ", 149 GiB",
        ),
        (MemoryError(), ""),
    ],
)
def test_out_of_memory(capsys, place, monkeypatch, failure, wanted):
    """House rule: one sentence that names the chunk and the replicas of this program, status 1."""
    monkeypatch.setitem(toy_program.FAILURES, "memory", failure)
    assert ran("toy", "--fail", "memory", "--out", "a") == 1
    wanted = f"{wanted} wanted at once" if wanted else ""
    assert capsys.readouterr().err == (
        f"error: out of memory{wanted}: lower --chunk (now None: all at once), --seeds (now 3) or "
        "--heads (now 4 8)\n"
    )
    assert not list(place.iterdir())


@pytest.mark.parametrize(
    ("ask", "wanted"), [(jnp.ones, "72.8 TiB"), (np.ones, "72.8 TiB"), (held, "")]
)
def test_memory_that_no_machine_has(ask, wanted):
    """Closed form: ten million million numbers of eight bytes, refused by XLA, numpy and Python."""
    said = f"out of memory{wanted and f', {wanted} wanted at once'}: lower --chunk"

    def asked():
        with shortage.told(toy_program.Config()):
            jax.block_until_ready(ask(10**13))

    with pytest.raises(shortage.OutOfMemoryError, match=re.escape(said)) as caught:
        asked()
    assert not getattr(caught.value, "__notes__", [])


def test_other_errors_stay_what_they_are():
    """House rule: what speaks of no memory is not dressed up as a lack of it."""
    for error in (RuntimeError("INTERNAL: a bug"), ValueError("out of memory"), KeyError("a bug")):
        with pytest.raises(type(error)), shortage.told(toy_program.Config()):
            raise error


def test_no_more_than_four_choices_are_named():
    """Closed form: chunks before replicas before sizes; none of them is no flag."""
    fields = ("dim", "images", "seeds", "measured", "batch", "chunk", "rtol")
    config = dataclasses.make_dataclass("Config", [(name, int, 7) for name in fields])()
    assert shortage.remedy(config) == (
        "lower --chunk (now 7), --batch (now 7), --measured (now 7) or --seeds (now 7)"
    )
    config = dataclasses.make_dataclass("Config", [("rtol", float, 1.0)])()
    assert shortage.remedy(config) == "use a machine with more of it"
