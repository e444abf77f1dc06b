"""Files of evidence that has left the database: written once, read by attempt or by postback, a few blocks at a time."""
