"""The load generator: random arrivals of streams over any protocol, each played like a real-time listener's."""
