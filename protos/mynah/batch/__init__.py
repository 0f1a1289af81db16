"""Many lines of text spoken into files: by servers, or by engines in a Ray cluster (`mynah.batch.ray`)."""
