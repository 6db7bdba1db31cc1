"""The store: one SQLite file, one table a module, one writer, values out."""
