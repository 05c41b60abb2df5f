"""What the optimizers' tests go over: every registered optimizer, one that has bases on each of them."""

from lib.optim.base import OPTIMIZERS

BASES = [n for n in OPTIMIZERS if OPTIMIZERS[n].keeps and not OPTIMIZERS[n].has_base]
ARMS = [(n, base) for n in OPTIMIZERS for base in (BASES if OPTIMIZERS[n].has_base else [""])]
