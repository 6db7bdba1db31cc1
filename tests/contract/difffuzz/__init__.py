"""Random operations on a mount, behind it and on a plain directory: the three must stay equal.

``operations`` says what can be done and does it to one tree, ``chooser`` picks the next one, ``observer``
tells what one name looks like, ``fuzzer`` does each operation twice and compares, ``program`` is the
command line. ``tools/check/difffuzz`` is the door.
"""
