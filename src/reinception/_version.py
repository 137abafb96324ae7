"""The version, once; the package, the wheel and every file that names a version take it from here."""

__version__ = "0.2.0"
