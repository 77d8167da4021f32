"""The verb `superresolve`: ultra-low-field scans of one person in, a finer image out."""
