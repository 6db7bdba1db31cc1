"""The tasks and jobs that bring the library up to date: walking, identifying, cleaning up."""
