"""Where things run: one module per kind of device."""
