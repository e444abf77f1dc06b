"""The console: server-rendered pages for whoever investigates, and buttons for whoever may act."""
