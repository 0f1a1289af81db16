"""How languages write: where their sentences and clauses end, and how long a segment may be."""
