"""Lambda entry points, one module a function: parse, call one use case, answer."""
