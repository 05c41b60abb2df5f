"""Tensor code of the pruning methods; imported when one is built, never by a plan or a report."""
