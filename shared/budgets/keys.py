"""The names of the Redis keys."""

from __future__ import annotations

from functools import lru_cache


class TenantKeys:
    """The Redis keys of one tenant. The braces make `{tenant}` the hash tag: all of them live in one cluster slot."""

    def __init__(self, tenant: str) -> None:
        self.prefix = f"tk:{{{tenant}}}:"
        self.meta = f"{self.prefix}meta"
        self.bits = f"{self.prefix}bits"
        self.index = f"{self.prefix}index"
        self.asserted = f"{self.prefix}asserted"
        self.marks = f"{self.prefix}marks"
        self.decisions = f"{self.prefix}decisions"

    def cell(self, cell_id: str) -> str:
        """The hash of one counter."""
        return f"{self.prefix}c:{cell_id}"

    def learned(self, name: str) -> str:
        """The string of one learned estimate."""
        return f"{self.prefix}l:{name}"


@lru_cache(maxsize=10_000)
def tenant_keys(tenant: str) -> TenantKeys:
    """The keys of a tenant."""
    return TenantKeys(tenant)
