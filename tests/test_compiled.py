import jax
import pytest

from meanfield import compiled


@pytest.mark.parametrize("place", ["file", "file/deeper", "a" * 300, "open", "nul\0"])
def test_refused(tmp_path, monkeypatch, place):
    """House rule: a place where nothing or anybody can write is refused, and nothing is changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    before = jax.config.jax_compilation_cache_dir
    expected = "nobody else writes" if place == "open" else "where files can be written"
    with pytest.raises(ValueError, match=f"must be a directory .*{expected}.*; name another place"):
        compiled.keep(place)
    assert jax.config.jax_compilation_cache_dir == before
