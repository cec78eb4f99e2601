"""An example backend."""
