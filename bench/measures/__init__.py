"""The figures, one module each: `measure(cast, sizes) -> Figure`."""
