"""A workload that knows what it was promised, for killing what serves it.

``writer`` changes files and notes, outside the tree, what was acknowledged; ``journal`` is that file;
``verifier`` compares the tree with it after a restart; ``program`` is the command line.
``tools/check/crashwriter`` is the door.
"""
