"""The wheel: every room, nothing else, and it works where there is no checkout."""

import importlib.util
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {p.relative_to(ROOT).as_posix() for p in (ROOT / "meanfield").rglob("*.py")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Runs with the unpacked wheel in front and without the checkout: its editable install would answer.
PROBE = """
import importlib, importlib.metadata, json, sys
wheel, checkout, *rooms = sys.argv[1:]
sys.path = [wheel, *(entry for entry in sys.path if entry != checkout)]
import meanfield
for room in rooms:
    importlib.import_module(room)
files = [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "meanfield"]
print(json.dumps([meanfield.__version__, importlib.metadata.version("meanfield"), files]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder of the unpacked wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def test_wheel_holds_every_room_and_no_program(wheel):
    """Closed form: the files of the checkout's package, `py.typed` and the metadata."""
    found = {p.relative_to(wheel).as_posix() for p in wheel.rglob("*") if p.is_file()}
    metadata = f"meanfield-{PROJECT['version']}.dist-info"
    packed = {name for name in found if not name.startswith(f"{metadata}/")}
    assert packed == SOURCES | {"meanfield/py.typed"}
    assert f"{metadata}/licenses/LICENSE" in found


def test_wheel_imports_without_the_checkout(wheel, tmp_path):
    """Closed form: all rooms load from the wheel, with the version of its metadata."""
    rooms = sorted(
        ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__") for name in SOURCES
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", PROBE, str(wheel), str(ROOT), *rooms],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, of_metadata, files = json.loads(done.stdout)
    assert version == of_metadata == PROJECT["version"]
    assert len(files) == len(rooms)
    assert all(Path(file).is_relative_to(wheel) for file in files)


def test_versions_agree():
    """Closed form: citation and changelog name the version of the project."""
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_programs_are_not_installed():
    """Closed form: only the checkout knows the programs."""
    assert importlib.util.find_spec("experiments") is not None
    assert PROJECT.get("scripts", {}) == {}
