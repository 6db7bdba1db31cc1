"""The log: what devices tell each other, from the tables of one to the tables of another."""
