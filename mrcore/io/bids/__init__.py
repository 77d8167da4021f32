"""What BIDS sidecars say of a scan: sequence, field, weighting, resolution; and what they are known to get wrong."""
