"""The start of several processes: where each is among them, and how they find each other.

One trap: jax aborts the process, with a stack trace, where a port is taken or nobody answers. Both
are asked for here before.
"""

import socket
import time
from typing import Any, NamedTuple

import jax

PATIENCE = 300
"""Seconds that processes wait for each other at the start."""
FAREWELL = 30
"""Seconds that they wait for each other at the end."""
FORM = (
    "HOST:PORT,COUNT,INDEX with INDEX from 0 to COUNT - 1, say node1:1234,2,0 on the first of two"
)


class Place(NamedTuple):
    """Where a process is among several.

    Attributes:
        host: The host of process 0.
        port: A free port there.
        processes: How many there are.
        process: Which this is, from 0 on.
        patience: Seconds to wait for the others at the start.
    """

    host: str
    port: int
    processes: int
    process: int
    patience: int


def placed(where: str, /) -> Place:
    """The place that a user names.

    Args:
        where: ``HOST:PORT,COUNT,INDEX``, and ``,SECONDS`` to wait for the others if not 300.

    Raises:
        ValueError: If it is none.

    >>> placed("node1:1234,2,0")
    Place(host='node1', port=1234, processes=2, process=0, patience=300)
    """
    try:
        address, number, index, *patience = where.split(",")
        host, port = address.rsplit(":", 1)
        found = Place(host.strip("[]"), int(port), int(number), int(index), PATIENCE)
        found = found._replace(patience=int(*patience)) if patience else found
    except (TypeError, ValueError):
        raise ValueError(f"--distributed must be {FORM}, got {where!r}") from None
    inside = 0 <= found.process < found.processes and 0 < found.port < 65536
    if not (inside and found.host and found.patience > 0):
        raise ValueError(f"--distributed must be {FORM}, got {where!r}")
    return found


def join(where: str, /) -> None:
    """Makes this process one of several, before jax has seen a device.

    Args:
        where: The place (:func:`placed`); empty where a cluster says it, as SLURM does.

    Raises:
        ValueError: If nothing says where process 0 is, or it does not answer.

    >>> join("node1:1234,2,2")
    Traceback (most recent call last):
    ValueError: --distributed must be HOST:PORT,COUNT,INDEX with INDEX from 0 to COUNT - 1, say ...
    """
    limits: dict[str, Any] = {"shutdown_timeout_seconds": FAREWELL}
    if where:
        place = placed(where)
        _check_port(place) if place.process == 0 else _check_answer(place)
        limits |= {
            "coordinator_address": f"{place.host}:{place.port}",
            "num_processes": place.processes,
            "process_id": place.process,
            "initialization_timeout": place.patience,
            "cluster_detection_method": "deactivate",
        }
    # The handler of this service would swallow the signal that ends a job.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**limits)
    except ValueError as error:
        raise ValueError(
            f"--distributed found no coordinator ({str(error).rstrip('.')}): start under srun, or "
            f"give {FORM}"
        ) from None
    # Devices are introduced to each other once, by all processes at the same time.
    jax.devices()


def leave() -> None:
    """Waits until all processes are done; the exit of the first would end the others.

    >>> leave()
    """
    jax.distributed.shutdown()


def _check_port(place: Place) -> None:
    try:
        socket.create_server(("", place.port)).close()
    except OSError as error:
        raise ValueError(
            f"port {place.port} of this host cannot be listened on ({error.strerror}): give all "
            "processes another"
        ) from None


def _check_answer(place: Place) -> None:
    deadline = time.monotonic() + place.patience
    while True:
        try:
            socket.create_connection((place.host, place.port), timeout=place.patience).close()
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ValueError(
                    f"process 0 does not answer at {place.host}:{place.port} after "
                    f"{place.patience} s ({error.strerror or error}): start it there with index "
                    "0, or mend the address"
                ) from None
            time.sleep(0.2)
        else:
            return
