"""Compiled programs kept on disk, for the next process that asks for the same.

    compiled.keep("~/.cache/meanfield")      before anything is computed

jax keeps by itself, where ``JAX_COMPILATION_CACHE_DIR`` says, what took a second to compile; here
everything is kept, as a run compiles many small programs.

One trap: a program that calls Python cannot be kept. A progress bar is such a call, and so are the
checks of diffrax, unless ``EQX_ON_ERROR=nan`` is set before meanfield is imported. And a kept
program is code that the next process runs: nobody else may be able to write to the directory.

References:
    jax documentation, *Persistent compilation cache*.
"""

import os
import tempfile
from pathlib import Path

import jax


def keep(directory: str | os.PathLike, /) -> Path:
    """The directory in which all compiled programs are kept from now on.

    Args:
        directory: Where; it is made if it is not there. ``~`` is the home directory.

    Raises:
        ValueError: If no file can be written there, or others may write there.

    >>> keep("/dev/null/cache")
    Traceback (most recent call last):
    ValueError: the cache of compiled programs must be a directory where files can be written, ...
    """
    try:
        path = Path(directory).expanduser().resolve()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=path):
            pass
        mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:
        # A home that is not known is a RuntimeError, a NUL byte a ValueError.
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"the cache of compiled programs must be a directory where files can be written, got "
            f"{str(directory)!r} ({reason}); name another place"
        ) from None
    if mode & 0o022:
        raise ValueError(
            f"the cache of compiled programs must be a directory where nobody else writes, as its "
            f"programs are run, got {str(directory)!r}; name another place, or chmod go-w it"
        )
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path
