import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src import distributed

from meanfield import processes, store
from meanfield.processes import sharing

ROOT = Path(__file__).parents[2]
PAIR = """
import dataclasses, pathlib, time
from typing import Any, NamedTuple
import jax, jax.numpy as jnp, numpy as np
from experiments._together import side_by_side
from meanfield.command import Outcome

SUMMARY = "Items of which every process takes some."

@dataclasses.dataclass(frozen=True)
class Config:
    here: str
    job: str = "count"

class Found(NamedTuple):
    values: Any
    who: int

PRESETS = {"default": Config(here="")}
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))

def job(config, item):
    # Nobody goes on before all are here, so that nobody takes everything.
    here = pathlib.Path(config.here)
    (here / str(jax.process_index())).touch()
    while len(list(here.iterdir())) < jax.process_count():
        time.sleep(0.01)
    if jax.process_index() == 1 and config.job == "value":
        raise ValueError("item must be 0,\\n got 1")
    if config.job != "count":
        # In one piece: other items of this process may begin at the same time.
        print("begun\\n", end="", flush=True)
        time.sleep(600)
    return Found(jnp.sin(item * jnp.arange(4.0)), jax.process_index())

def run(config, *, out_dir, progress):
    first = side_by_side(lambda item: job(config, item), range(4))
    total = sum(found.values for found in first)
    second = side_by_side(lambda item: item * total.at[0].add(1.0), [3.0, 2.0, 1.0])
    arrays = {"first": np.stack([found.values for found in first]), "second": np.stack(second)}
    print("over by", jax.process_index())
    print("found", events.count("/jax/compilation_cache/cache_hits"))
    return Outcome(arrays, "# Pair", str([found.who for found in first]), {}, [0])
"""
# Under a runner in the background SIGINT is ignored, and a child inherits that.
FRONT = (
    "import signal;"
    "signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from meanfield import command;"
    "command.end(lambda: command.main({'pair': 'pair'}, prog='p', kind='pair', spread=True))"
)


@pytest.fixture
def started(tmp_path):
    """Starts processes of the program above; they are ended with the test, whatever happens."""
    for name in ("code", "place", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "code" / "pair.py").write_text(PAIR, encoding="utf-8")
    running = []

    def start(*words):
        command = [sys.executable, "-B", "-c", FRONT, "pair", "--here", str(tmp_path / "here")]
        process = subprocess.Popen(
            [*command, *words],
            cwd=tmp_path / "place",
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path / 'code'}", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def pair(start, *words):
    """Two processes at work together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]},2"
    return [start(*words, "--out", "two", "--distributed", f"{where},{each}") for each in (0, 1)]


def ends(processes):
    """Exit status, output and errors of each."""
    said = [process.communicate(timeout=100) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, said, strict=True)]


def test_two_processes(started, tmp_path):
    """Invariance: the record of two processes is, bit for bit, that of one; only one speaks."""
    kept = tmp_path / "cache"
    (alone,) = ends([started("--out", "one", "--cache", str(kept))])
    programs = {path.name for path in kept.glob("jit_sin-*-cache")}
    first, second = ends(pair(started, "--cache", str(kept)))
    assert alone[0] == first[0] == 0
    assert second == (0, "", "")
    # Both took a part, and the first alone went on to the end.
    assert set(json.loads(first[1].split("\n\n")[1])) == {0, 1}
    assert first[1].count("over by 0") == 1
    one, two = (store.load_run(tmp_path / "place" / name).arrays for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(two[name], array, strict=True)
    # The second run found the program of the items, and kept no other.
    assert int(re.findall(r"found (\d+)", first[1])[0]) >= 1
    assert programs
    assert {path.name for path in kept.glob("jit_sin-*-cache")} == programs


def test_bad_input_of_one_ends_both(started, tmp_path):
    """House rule: what the second process refuses is the sentence of the first; no trace."""
    first, second = ends(pair(started, "--job", "value"))
    assert (first[0], first[2]) == (2, "error: item must be 0, got 1\n")
    assert second == (2, "", "")
    assert not list((tmp_path / "place").iterdir())


def test_interrupt_of_one_ends_both(started, tmp_path):
    """House rule: Ctrl-C amid work of minutes ends the other process too, without a trace."""
    both = pair(started, "--job", "sleep")
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    both[0].send_signal(signal.SIGINT)
    first, second = ends(both)
    assert (first[0], first[2]) == (130, "\ninterrupted: nothing was written\n")
    assert (second[0], second[2]) == (1, "")
    assert not list((tmp_path / "place").iterdir())


class Store(dict):
    """The key-value store of a coordinator, in this process."""

    key_value_set = dict.__setitem__
    key_value_set_bytes = dict.__setitem__

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.items() if key.startswith(folder)]

    def key_value_increment(self, key, by):
        self[key] = self.get(key, 0) + by
        return self[key]

    def blocking_key_value_get_bytes(self, key, timeout):
        if key not in self:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
        return self[key]


@pytest.fixture
def coordinator(monkeypatch):
    """The store, and a function to become one of its processes."""
    client = Store()
    monkeypatch.setattr(distributed.global_state, "client", client)
    monkeypatch.setattr(sharing, "join", lambda where: None)
    monkeypatch.setattr(sharing, "_calls", itertools.count())
    return client, lambda process: monkeypatch.setattr(
        distributed.global_state, "process_id", process
    )


@pytest.mark.parametrize(
    ("raised", "seen", "heard"),
    [
        (ValueError("got 1"), processes.Over, ValueError("got 1")),
        (KeyboardInterrupt(), processes.Over, KeyboardInterrupt()),
        (KeyError("a bug"), KeyError, RuntimeError("process 1 shows where: KeyError: 'a bug'")),
    ],
)
def test_failures_are_told(coordinator, raised, seen, heard):
    """Closed form: the leader raises what another process met; of a bug that one shows where."""
    client, become = coordinator
    client["0/begun"] = b""
    become(1)
    with pytest.raises(seen), processes.together("here"):
        raise raised
    become(0)
    with pytest.raises(type(heard), match=str(heard) or "^$"):
        processes.check()


def test_the_others_end_with_the_leader(coordinator):
    """Closed form: whoever waits for items, or works on them, hears how the leader ended."""
    client, become = coordinator
    with pytest.raises(KeyError), processes.together("here"):
        raise KeyError
    become(1)
    with pytest.raises(processes.Over) as over, processes.together("here"):
        raise AssertionError
    assert over.value.status == 1
    assert set(client) == {"over/status"}
    client["over/status"] = "0"
    items = processes.share(1)
    with pytest.raises(processes.Over) as over:
        items.exchanged({0: 1.0})
    assert over.value.status == 0


def test_items_go_to_one_process_each(coordinator):
    """Closed form: two processes draw each place once, and hold the same results in the end."""
    client, become = coordinator
    first = processes.share(3)
    assert [first.following() for _ in range(2)] == [0, 1]
    client["1/begun"] = b""
    become(1)
    sharing._calls = itertools.count()
    second = processes.share(3)
    assert [second.following() for _ in range(3)] == [2, None, None]
    client["0/0"], client["0/1"] = processes.packed("a"), processes.packed("b")
    assert second.exchanged({2: "c"}) == ["a", "b", "c"]
    become(0)
    assert first.exchanged({0: "a", 1: "b"}) == ["a", "b", "c"]
