"""What the rest of the house may ask of the database: takes and gives ``schemas`` values."""
