"""The other devices of a library: who they are, how they become members, and the links to them."""
