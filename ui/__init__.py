"""The web page: speak text, see how the speech is made, clone a voice. It uses the `mynah` client."""
