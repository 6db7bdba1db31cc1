"""Settings and small things that every room of this floor needs."""
