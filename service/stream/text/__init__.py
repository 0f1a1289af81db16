"""What is read of a stream's text: spoken forms, pauses, marks, SSML, dictionaries."""
