"""How we learn what is on disk: walk, compare, watch, hash. What it costs is paid in processes of its own.

Nothing in this room writes to a user's file, and nothing here decides what a difference means: it reports,
the store commits.
"""
