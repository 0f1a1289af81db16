"""The handlers that every surface calls, whatever the transport."""
