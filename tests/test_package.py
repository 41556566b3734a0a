import importlib

import pytest

import meanfield


@pytest.mark.parametrize("name", ["plots", "rates", "store", "tasks"])
def test_rooms_on_demand(name):
    """Equality: a room that its package does not import is the module of that name."""
    assert meanfield.__getattr__(name) is importlib.import_module(f"meanfield.{name}")


def test_unknown_attribute():
    """Closed form: the message of a module without such a name."""
    with pytest.raises(AttributeError, match="^module 'meanfield' has no attribute 'rooms'$"):
        meanfield.rooms  # noqa: B018 (naming it is what raises)
