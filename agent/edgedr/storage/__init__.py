"""Dumb objects: names and bytes, no meaning. Storages do not know each other."""
