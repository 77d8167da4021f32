"""Self-contained HTML pages: content, pictures, plots, tables."""
