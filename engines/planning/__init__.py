"""A plan of a GPU on paper: times, streams, memory and cost, from the operations of the nets and a data sheet."""
