"""``python -m robolearn``, which `torchrun -m robolearn train ...` needs."""

from robolearn.cli import entry

entry()
