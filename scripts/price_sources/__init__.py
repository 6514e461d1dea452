"""Readers of the public price data that the catalog is built from. Nothing here is imported by the product."""
