"""The boards, one in each file."""
