"""What ``GET /health`` tells: whether the fleet does its work, and nothing of whose."""
