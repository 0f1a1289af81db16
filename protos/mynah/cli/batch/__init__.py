"""`mynah batch`: a file of things to say, through one or many servers, into a folder."""
