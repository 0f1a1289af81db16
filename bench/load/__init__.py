"""The load generator of `service/load` against a server of its own, with a plot, for the documents."""
