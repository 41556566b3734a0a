"""``python -m experiments``.

On a CPU, several runs go side by side (:mod:`experiments._together`). One trap: by default XLA
splits every small matrix product over all cores, which costs more than it gains.
"""

import os
import sys

os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=false {os.environ.get('XLA_FLAGS', '')}"

if any(word.partition("=")[0] == "--cache" for word in sys.argv):
    # Not "raise": diffrax would check the times of a flow, which are checked before, by calls from
    # the compiled program to Python; and such a program cannot be kept for the next run.
    os.environ.setdefault("EQX_ON_ERROR", "nan")

# XLA reads its flags once, when it is first used; equinox when it is imported.
from experiments._cli import main
from meanfield import command

if __name__ == "__main__":
    command.end(main)
