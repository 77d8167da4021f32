"""The verb `quantify`: raw data of a fingerprint in, T1, T2 and PD out."""
