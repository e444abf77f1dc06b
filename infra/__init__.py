"""All that is outside us: settings, logging, broker, embedded engines, database, wire, sink."""
