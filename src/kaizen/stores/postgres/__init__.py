"""Adapters to PostgreSQL: the ledger's records, and points to find near ones by."""
