"""Where voices are stored."""
