"""The torch nets of S3Gen."""
