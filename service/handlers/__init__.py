"""What every surface does with a call, whatever the transport."""
