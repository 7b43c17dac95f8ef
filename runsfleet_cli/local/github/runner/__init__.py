"""The runner that the stand-in hands out: actions/runner's outside, with act inside.

These files are packed into the runner package and run on an instance with nothing but Python's
standard library; there the package is called ``actions_runner``, hence the relative imports.
"""
