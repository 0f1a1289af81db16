"""The HTTP transport: OpenAI's speech API, voices, the contract's stream over a WebSocket, health, OpenAPI."""
