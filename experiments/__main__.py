"""``python -m experiments``.

On a CPU, several runs go side by side (:mod:`experiments._together`). One trap: by default XLA
splits every small matrix product over all cores, which costs more than it gains.
"""

import os

os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=false {os.environ.get('XLA_FLAGS', '')}"

# XLA reads its flags once, when it is first used.
from experiments._cli import main
from meanfield import command

if __name__ == "__main__":
    command.end(main)
