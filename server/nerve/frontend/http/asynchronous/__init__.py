"""Requests that are answered later, as Baseten has them (its contract, section 9)."""
