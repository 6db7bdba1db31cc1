"""Suites that attack a directory tree from outside, given nothing but its path.

They know the kernel's contract (POSIX and Linux manual pages), not our packages: the same program runs on
ext4, on tmpfs, on another FUSE file system and on our mount, so a native directory proves the checks and a
mount is measured by them. Standard library only; any Python from 3.11 on runs them.
"""
