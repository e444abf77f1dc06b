"""How events get in: the SDK, imports and their command line."""
