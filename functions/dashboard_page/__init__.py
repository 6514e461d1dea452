"""The dashboard: its sources, and the one page that is made of them."""
