"""Which Holdfire this is: recorded with every attempt."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("holdfire")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0+source"
