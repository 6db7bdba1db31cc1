"""Bytes and meaning between devices, without I/O beyond the key file."""
