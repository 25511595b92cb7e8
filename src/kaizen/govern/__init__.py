"""Who may call, and how much: keys, tokens, limits, budgets."""
