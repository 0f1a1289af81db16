"""The `mynah-engines` command."""
