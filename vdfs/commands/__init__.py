"""The commands of `sd`, by noun: their arguments, what they ask of the library, what they print."""
