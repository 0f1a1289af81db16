"""Windows, batches and joins: how a stream of speech tokens becomes chunks of audio."""
