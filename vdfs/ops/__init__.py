"""What may be asked and commanded: one file a noun, each with its queries and actions; table.py names them all."""
