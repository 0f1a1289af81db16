"""What speaks for a batch on a Ray cluster: an engine and the contract's handler, without a port."""
