"""This repository's own app: an environment file becomes a stage, each region a stack."""
