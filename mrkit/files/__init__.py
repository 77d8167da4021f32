"""What a job reads, keeps and writes, and where results come from."""
