"""The HTTP surface: OpenAI's speech API, voices, a WebSocket that carries the contract's stream, health, OpenAPI."""
