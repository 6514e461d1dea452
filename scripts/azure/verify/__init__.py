"""Measures on a live system what its design rests on and no test on a laptop can prove.

    make verify ENV=dev

A handful of tiny calls goes through the gateway; then both event hubs, the ledger and the resources are read.
"""
