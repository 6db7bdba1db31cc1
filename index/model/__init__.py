"""The vocabulary of the house: values and pure rules, no input or output, no clock, no database."""
