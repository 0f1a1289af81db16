"""The page: hear a voice, see how it is made, clone one. Speaks to a Mynah server through the `mynah` client alone."""
