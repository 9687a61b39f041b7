"""Published weights as runs, and runs as published weights."""
