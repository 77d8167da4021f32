"""The verb `transfer`: blur and noise learnt from pairs of scans."""
