"""The database: engine, migrations. Rows and SQL never leave ``infra``."""
