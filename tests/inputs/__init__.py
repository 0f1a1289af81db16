"""A table of what people really send: input, surface, right value, on the shipped model through real sockets."""
