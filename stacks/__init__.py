"""This repository's own app: environment files become stages, each with a stack for every region."""
