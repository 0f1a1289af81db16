"""The `mynah` command."""
