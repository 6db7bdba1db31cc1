"""A library on disk: its directory, its lock, its facts."""
