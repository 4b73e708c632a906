"""Meaning on top of storage: names, manifests, chains, commit, and the way back."""
