import hashlib

import pytest

from meanfield import store


def test_checksum(tmp_path):
    """Independent library: hashlib on the bytes."""
    content = bytes(range(256)) * 300
    (tmp_path / "a").write_bytes(content)
    assert store.checksum(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_replacing_is_all_or_nothing(tmp_path):
    """Invariance: until the block has ended well the old file stands; a failure leaves no trace."""
    target = tmp_path / "a.txt"
    target.write_text("old", encoding="utf-8")

    def fail():
        with store.replacing(target) as temporary:
            temporary.write_text("half", encoding="utf-8")
            assert temporary.parent == target.parent
            assert target.read_text(encoding="utf-8") == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    with store.replacing(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert target.read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
