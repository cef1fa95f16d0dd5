"""Bringing models of other tools into a repository, in its own layout."""
