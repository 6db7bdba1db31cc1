"""How devices find and reach each other."""
