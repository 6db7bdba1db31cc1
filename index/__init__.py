"""The ground floor: what the library knows of files, and how it learns it. Imports nothing from the floors above."""
