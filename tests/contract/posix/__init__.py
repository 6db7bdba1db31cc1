"""One file per group of system calls; each ``check_<sentence>(root, env)`` states one promise.

``kit`` holds what checks are written with, ``syscalls`` the calls Python's os module lacks, ``probing``
finds what a tree cannot offer, ``runner`` runs each check in a process of its own, ``program`` is the
command line. ``tools/check/posix DIR`` is the door.
"""
