"""What disturbs a scan: fields, motion, k-space errors, interference."""
