"""Bulkhead beside its peers on one host, in one run: how long things take and how much memory they use."""
