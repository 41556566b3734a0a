import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meanfield import processes

ROOT = Path(__file__).parents[2]


def test_places():
    """Closed form: address, number, which, and how long to wait; an address may hold colons."""
    assert processes.placed("node1:1234,8,3") == ("node1", 1234, 8, 3, 300)
    assert processes.placed("[::1]:99,1,0,5") == ("::1", 99, 1, 0, 5)


@pytest.mark.parametrize(
    "where",
    [
        "node1",
        "node1,2,0",
        "node1:1234",
        "node1:1234,2",
        "node1:1234,2,0,5,6",
        ":1234,2,0",
        "node1:port,2,0",
        "node1:0,2,0",
        "node1:65536,2,0",
        "node1:1234,2,2",
        "node1:1234,2,-1",
        "node1:1234,0,0",
        "node1:1234,two,0",
        "node1:1234,2,0,0",
    ],
)
def test_what_is_no_place(where):
    """House rule: what was got, what is expected, an example."""
    with pytest.raises(ValueError, match=rf"must be HOST:PORT,COUNT,INDEX .*got {where!r}$"):
        processes.join(where)


def test_nobody_answers():
    """House rule: a wrong address is one sentence, after as long as was asked for."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=rf"does not answer at localhost:{port} after 1 s"):
        processes.join(f"localhost:{port},2,1,1")


def test_a_port_that_is_taken():
    """House rule: a port in use is one sentence, where jax would crash."""
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port} of this host cannot be listened on"):
            processes.join(f"localhost:{port},2,0")


def test_no_coordinator():
    """House rule: where no cluster says who leads: status 2, one sentence with the remedy."""
    clusters = re.compile("SLURM|OMPI|JAX_COORDINATOR|KUBERNETES|TPU|CLOUD")
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "pde", "--preset", "tiny", "--distributed"],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if not clusters.match(name)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: --distributed found no coordinator \(.*\): start under srun, or give "
        r"HOST:PORT,COUNT,INDEX [^\n]*\n",
        done.stderr,
    )
