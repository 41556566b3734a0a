import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from meanfield import devices, flow, nn, replicas

TESTS = Path(__file__).resolve().parents[1]
EPS = np.finfo(np.float64).eps


def said(folder, *processes):
    """What programs started at once print, which have eight devices together."""
    flags = f"--xla_force_host_platform_device_count={8 // len(processes)}"
    dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*jit_whole.*"
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS.parent),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} {dump}",
    }
    command = [sys.executable, str(TESTS / "spread_program.py"), str(folder)]
    running = [
        subprocess.Popen([*command, *each], stdout=subprocess.PIPE, text=True, env=environment)
        for each in processes
    ]
    try:
        printed = [process.communicate(timeout=500)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [json.loads(text.splitlines()[-1]) for text in printed]


def test_eight_devices(tmp_path):
    """Invariance: energy, gradient, Hessian product, flow, replicas, chunks; what is sent."""
    (found,) = said(tmp_path, [])
    assert found["devices"] == 8
    for name in ("whole", "chunks"):
        assert max(found[name].values()) < 100 * EPS
    # Round-off of every step, along a flow of some sixty of them.
    assert found["flow"] < 1000 * EPS
    assert found["statistics"][0] == found["statistics"][1]
    # An event ends both at the same time, amid the flow.
    (result, time), (again, its_time) = found["event"]
    assert result == again == "stopped"
    assert 0.1 < time < 1.9
    # Round-off of the gradient moves the root of what an event asks by more.
    assert abs(its_time - time) < 1e4 * EPS
    assert found["event apart"] < 1e4 * EPS
    assert found["curvature"] < 1000 * EPS
    # Two half-steps: one reduction over heads for each, forward and backward, and one over data.
    assert found["gradient"] == ["all-reduce"] * 5
    # Particles stay where they are: no solve gathers or moves them.
    assert found["solve"] == [["all-reduce"]]
    assert found["replicas"]["ends"] < 100 * EPS
    # Each replica ends by itself, and no group of devices hears of the other.
    steps, again = found["replicas"]["steps"]
    assert steps == again
    assert len(set(steps)) == 4
    assert set(found["replicas"]["groups"]) == {"all-reduce"}
    talking = found["replicas"]["groups"]["all-reduce"]
    assert {"0,1", "0,2", "4,5", "4,6"} <= set(talking)
    assert all(len({int(each) // 4 for each in group.split(",")}) == 1 for group in talking)


def test_two_processes(tmp_path):
    """Invariance: four devices of each of two processes, against one device."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    for found in said(tmp_path, [address, "2", "0"], [address, "2", "1"]):
        assert found["devices"] == 8
        assert max(found["whole"].values()) < 100 * EPS
        assert found["flow"] < 1000 * EPS
        assert found["statistics"][0] == found["statistics"][1]


def test_a_mesh_of_one_device():
    """Invariance: value and gradient; samples and particles along axes of length one."""
    model = nn.model(nn.identity(), nn.network((nn.mlp(dim=2),), depth=2), nn.label_read())
    mesh = devices.mesh(data=1)
    theta = model.init(jax.random.key(0), width=3)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2)))
    plain = flow.empirical_risk(model.apply, tokens, jnp.ones((4,)))
    spread = flow.empirical_risk(model.apply, tokens, jnp.ones((4,)), mesh=mesh)
    for one, other in zip(
        *(jax.tree.leaves(jax.value_and_grad(risk)(theta)) for risk in (plain, spread)), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=100 * EPS, atol=100 * EPS)


@pytest.mark.parametrize(
    ("shape", "spec", "message"),
    [
        ((2, 6), PartitionSpec(None, "heads"), "axis 1 of an array must be a multiple of the 4"),
        ((2, 2), PartitionSpec(None, "heads"), r"'heads', got shape \(2, 2\) at \['w'\]"),
        ((2,), PartitionSpec(None, "heads"), r"got shape \(2,\)"),
        ((3, 4), PartitionSpec("data"), "multiple of the 2 devices of mesh axis 'data'"),
        (
            (2, 2),
            PartitionSpec("data", "heads"),
            "another number of heads, or fewer devices for them",
        ),
        ((4,), PartitionSpec("rows"), "must have an axis 'rows', got .'data', 'heads'."),
    ],
)
def test_refused(shape, spec, message):
    """Refused: heads or samples that devices do not divide, fewer heads than devices, no axis."""
    mesh = AbstractMesh((2, 4), ("data", "heads"))
    with pytest.raises(ValueError, match=message):
        devices.check_spread({"w": jnp.ones(shape)}, mesh, spec)
    devices.check_spread({"w": jnp.ones((2, 8))}, mesh, PartitionSpec("data", "heads"))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data": 2, "heads": 40}, "needs 80 devices, got 1; on a CPU XLA_FLAGS=.*count=80 makes"),
        ({"data": 0}, "data must be an integer >= 1, got 0"),
    ],
)
def test_refused_meshes(axes, message):
    """Refused: more devices than there are, and none."""
    with pytest.raises(ValueError, match=message):
        devices.mesh(**axes)


def test_refused_replicas():
    """Refused: replicas that groups of devices do not divide, and a mesh without any."""
    with pytest.raises(ValueError, match="must have an axis 'replicas', got .'data',"):
        replicas.each_replica(jnp.sin, devices.mesh(data=1))
    apart = AbstractMesh((2, 4), ("replicas", "heads"))
    with pytest.raises(ValueError, match="the 2 devices of mesh axis 'replicas', got shape .3,."):
        replicas.each_replica(jnp.sin, apart)(jnp.ones(3))
