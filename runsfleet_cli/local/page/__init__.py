"""The page of the local cloud and the JSON behind it."""
