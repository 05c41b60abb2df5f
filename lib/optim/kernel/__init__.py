"""Tensor code of the optimizers; imported when one is built, never by a plan or a report."""
