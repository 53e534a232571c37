"""Who may use a shared engine: users, tokens, workspaces, limits and what administrators did. No web framework here."""
