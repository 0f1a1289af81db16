"""When each word of a segment is spoken, and whether all of them are: from T3's attention to the text."""
