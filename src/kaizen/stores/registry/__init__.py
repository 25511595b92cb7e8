"""Where versions and labels lie: memory, SQLite, PostgreSQL."""
