"""``python -m experiments``."""

from experiments._cli import main
from meanfield import command

if __name__ == "__main__":
    command.end(main)
