"""The HTTP door: events over HTTP, kept verbatim and committed before they are answered for."""
