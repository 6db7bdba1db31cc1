"""Volumes: file systems as things that come and go, by their own identity and not by where they are mounted."""
