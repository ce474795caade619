"""The benchmark: `script/bench`, explained in docs/performance.md."""
