"""`mynah batch`: many lines of text, spoken by one server or several into a folder."""
