"""The version of this program, in the one place that is edited."""

__version__ = "0.1.0"
