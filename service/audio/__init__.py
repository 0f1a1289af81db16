"""Output formats: encoders, containers and the watermark."""
