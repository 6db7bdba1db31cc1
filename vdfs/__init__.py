"""What may be asked of a library and commanded to it.

The doorway of this floor: `core` (the composition of the floors beneath), `cli` (the `sd` command). Its
rooms: `wire` (JSON-RPC over a Unix socket), `ops` (the operations themselves), `space` (names to nodes,
nodes to bytes), `library`, `base`. The floor imports `sync` and `index`, never `fusefs`.

Nothing is imported here: `sd` has to be on screen before a person notices that it is Python.
"""
