"""Directories as answers: what is under `.vdfs`, computed when it is looked at, never stored."""
