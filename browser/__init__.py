"""The back office in a real browser: its tests, and the pictures of its pages in docs/operators/."""
