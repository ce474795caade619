"""What only tests use: their settings, and the servers they run against."""
